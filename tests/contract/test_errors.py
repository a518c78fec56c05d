"""Every error crosses processes whole and has an exit code."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import pickle
import typing
from typing import Any

import pytest

from detectors.errors import DetectorPoolError
from detectors.parsing import Unparsable

MODULES = tuple(
    importlib.import_module(name)
    for name in ("detectors.errors", "compliance.errors")
    if importlib.util.find_spec(name)
)
CLASSES = sorted(
    {
        cls
        for module in MODULES
        for cls in vars(module).values()
        if inspect.isclass(cls) and issubclass(cls, Exception) and cls.__module__ == module.__name__
    },
    key=lambda cls: cls.__name__,
)
# What the command line promises: usage, internal, tampering, busy, locked, input/output are told apart by number.
EXIT_CODES = frozenset({1, 2, 3, 4, 5, 6, 7})
SAMPLES: dict[Any, Any] = {str: "some text", int: 7, float: 1.5, bool: True}


def _sample(annotation: Any) -> Any:
    if typing.get_origin(annotation) is tuple:
        return tuple("ab")
    options = typing.get_args(annotation) or (annotation,)
    return next((SAMPLES[option] for option in options if option in SAMPLES), "some text")


def _made(cls: type[Exception]) -> Exception:
    if "__init__" not in {name for base in cls.__mro__ if base.__module__ != "builtins" for name in vars(base)}:
        return cls("what failed, on what", 42)
    hints = typing.get_type_hints(cls.__init__)
    parameters = list(inspect.signature(cls.__init__).parameters.values())[1:]
    return cls(*(_sample(hints.get(parameter.name, str)) for parameter in parameters))


@pytest.mark.parametrize("cls", [*CLASSES, Unparsable], ids=lambda cls: cls.__name__)
def test_survives_a_pickle_with_all_it_carries(cls: type[Exception]) -> None:
    """When this fails, an error of a worker reaches the driver as a `TypeError` from unpickling, or half empty."""
    error = _made(cls)
    again = pickle.loads(pickle.dumps(error))

    assert type(again) is cls
    assert (again.args, vars(again), str(again)) == (error.args, vars(error), str(error))
    assert str(again).strip()


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_has_an_exit_code_a_docstring_and_a_place_in_the_tree(cls: type[Exception]) -> None:
    """When this fails, the command line cannot say by its exit code what went wrong."""
    assert issubclass(cls, DetectorPoolError)
    assert cls.exit_code in EXIT_CODES
    assert vars(cls).get("__doc__")


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_is_drawn_and_exported(module: Any) -> None:
    """When this fails, the tree at the top of the file or `__all__` has forgotten a class."""
    own = [cls.__name__ for cls in CLASSES if cls.__module__ == module.__name__]

    assert sorted(module.__all__) == sorted(own)
    assert [name for name in own if name not in (module.__doc__ or "")] == []
