"""Module names: none that shadows another's, none that says nothing."""

from __future__ import annotations

import importlib.metadata
import sys
from pathlib import Path

HOUSE = Path(__file__).parents[2]
ROOMS = ("detectors", "compliance", "flows", "deployments")
DRAWERS = frozenset({"utils", "util", "helpers", "helper", "common", "manager", "base", "core", "misc", "shared"})
# Wrappers carry the name of the tool they wrap; the folder is a package and never stands on `sys.path` itself.
NAMED_AFTER_TOOLS = "tools"


def _modules(room: str) -> list[Path]:
    return sorted(path for path in (HOUSE / room).rglob("*.py") if path.stem != "__init__")


def test_no_module_of_the_engine_shadows_another() -> None:
    """When this fails, a program started inside `detectors/` imports our file in place of a library's."""
    taken = sys.stdlib_module_names | importlib.metadata.packages_distributions().keys()
    modules = [path for path in _modules("detectors") if path.parent.name != NAMED_AFTER_TOOLS]

    assert modules
    assert [path.name for path in modules if path.stem in taken] == []


def test_a_wrapper_is_named_after_what_it_wraps() -> None:
    """When this fails, `detectors/tools` holds a name that shadows something other than the tool it wraps."""
    taken = sys.stdlib_module_names | importlib.metadata.packages_distributions().keys()
    shadowing = [path for path in _modules("detectors") if path.parent.name == NAMED_AFTER_TOOLS and path.stem in taken]
    unlike = [
        path.name for path in shadowing if f'distribution = "{path.stem.replace("_", "-")}"' not in path.read_text()
    ]

    assert unlike == []


def test_no_module_is_a_drawer() -> None:
    """When this fails, a module is named for nothing, and will collect everything."""
    names = [
        path.relative_to(HOUSE) for room in ROOMS for path in (HOUSE / room).rglob("*") if path.suffix in ("", ".py")
    ]

    assert [str(name) for name in names if name.stem in DRAWERS] == []
