"""Each way in which a scanned tree mutes or hijacks a compiler, clang-tidy or cppcheck is planted, and changes nothing."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Scan = Callable[..., dict[str, Any]]

pytestmark = pytest.mark.system
TOOLS = "compiler-warnings,clang-tidy,cppcheck"
BAD = """\
#include "h.h"
int f(int n, int unused)
{
    int k;
    int *p = 0;
    if (n > 3) {
        k = *p;
    }
    return k;
}
"""
RULES = {
    "compiler-warnings": "compiler-warnings/unused-parameter",
    "clang-tidy": "clang-tidy/clang-analyzer-core.NullDereference",
    "cppcheck": "cppcheck/nullPointer",
}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A unit and a header that all three tools have something to say of."""
    folder = tmp_path / "tree"
    folder.mkdir()
    (folder / "a.c").write_text(BAD)
    (folder / "h.h").write_text("#ifndef H\n#define H\nint f(int n, int unused);\n#endif\n")
    return folder


def _found(result: dict[str, Any]) -> set[tuple[str, int, str, bool]]:
    return {(f["path"], f["line"], f["rule"], f["suppressed"]) for f in result["findings"]}


def _library(tree: Path, marker: Path) -> Path:
    """A shared library that leaves a mark when something loads it."""
    source = f'#include <stdio.h>\n__attribute__((constructor)) static void ran(void) {{ fopen("{marker}", "w"); }}\n'
    compiler = shutil.which("gcc")
    assert compiler is not None, "install what tests/system_packages.sh names"
    library = tree / "evil.so"
    command = [compiler, "-shared", "-fPIC", "-x", "c", "-", "-o", str(library)]
    subprocess.run(command, input=source.encode(), check=True, timeout=60)
    return library


def test_plugins_configuration_and_databases_of_the_tree_run_nothing(
    scan_json: Scan, tree: Path, tmp_path: Path
) -> None:
    """A plugin that the tree names would run with the rights of whoever scans it."""
    clean = _found(scan_json(tree, "--detectors", TOOLS, "--no-cache"))
    marker = tmp_path / "ran"
    library = _library(tree, marker)
    entry = {
        "directory": str(tree),
        "file": "a.c",
        "arguments": ["cc", f"-fplugin={library}", "-Xclang", "-load", "-Xclang", str(library), "a.c"],
    }
    files = {
        ".clang-tidy": f"Checks: '-*'\nExtraArgs: ['-fplugin={library}']\n",
        "compile_commands.json": json.dumps([entry]),
        "compile_flags.txt": f"-fplugin={library}\n",
        ".clangd": f"CompileFlags:\n  Add: [-fplugin={library}]\n",
        "a.cppcheck": "<project><addons><addon>evil.py</addon></addons></project>\n",
        "evil.py": f"open({str(marker)!r}, 'w')\n",
        "cppcheck.cfg": "<def></def>\n",
        "suppressions.txt": "*\n",
        "gcc": f"#!/bin/sh\ntouch {marker}\n",
        "specs": "*cc1:\n-fplugin=evil.so\n",
    }
    for name, text in files.items():
        (tree / name).write_text(text)
    (tree / "gcc").chmod(0o755)

    planted = _found(scan_json(tree, "--detectors", TOOLS, "--no-cache", cwd=tree))

    assert {rule for _, _, rule, _ in clean} >= set(RULES.values())
    assert planted == clean
    assert not marker.exists()


@pytest.mark.parametrize(
    ("detector", "old", "new"),
    [
        ("compiler-warnings", "int f", '#pragma GCC diagnostic ignored "-Wunused-parameter"\nint f'),
        ("compiler-warnings", "int f", "#pragma GCC system_header\nint f"),
        ("compiler-warnings", "int f", '#pragma GCC diagnostic push\n#pragma GCC diagnostic ignored "-Wextra"\nint f'),
        ("clang-tidy", "k = *p;", "k = *p; // NOLINT"),
        ("clang-tidy", "k = *p;", "// NOLINTNEXTLINE(clang-analyzer-*)\n        k = *p;"),
        ("clang-tidy", "int f", "// NOLINTBEGIN\nint f"),
        ("cppcheck", "k = *p;", "// cppcheck-suppress nullPointer\n        k = *p;"),
    ],
)
def test_marks_in_the_source_suppress_openly(scan_json: Scan, tree: Path, detector: str, old: str, new: str) -> None:
    """The finding is still there, and says that a mark asked for silence."""
    (tree / "a.c").write_text(BAD.replace(old, new, 1))

    found = scan_json(tree, "--detectors", detector)["findings"]

    assert [f["suppressed"] for f in found if f["rule"] == RULES[detector] and f["path"] == "a.c"] == [True]


@pytest.mark.parametrize(
    "line",
    [
        '_Pragma("GCC diagnostic ignored \\"-Wunused-parameter\\"")',
        '#define DO(x) _Pragma(#x)\nDO(GCC diagnostic ignored "-Wunused-parameter")',
        '# 1 "/usr/include/x.h" 1 3',
        '#line 900 "other.c"',
    ],
)
def test_operators_and_line_directives_hide_nothing(scan_json: Scan, tree: Path, line: str) -> None:
    """A finding that moves to another file, or into a header of the system, is a finding lost."""
    (tree / "a.c").write_text(BAD.replace("int f", f"{line}\nint f", 1))

    found = [f for f in scan_json(tree, "--detectors", "compiler-warnings")["findings"] if f["path"] == "a.c"]

    assert RULES["compiler-warnings"] in {f["rule"] for f in found}
    assert {f["line"] for f in found if f["rule"] == RULES["compiler-warnings"]} == {2 + line.count("\n") + 1}


@pytest.mark.parametrize("name", ["{secret}", "../../../../../../..{secret}"])
def test_no_file_outside_of_the_tree_is_shown(scan_json: Scan, tree: Path, tmp_path: Path, name: str) -> None:
    """A diagnostic would print what stands in a file that the scan's author cannot read."""
    secret = tmp_path / "secret.txt"
    secret.write_text("hunter2 is no C\n")
    (tree / "a.c").write_text(f'#include "{name.format(secret=secret)}"\n')
    (tree / "b.c").write_text(f'#define S "{secret}"\n#include S\n')

    result = scan_json(tree, "--detectors", TOOLS)

    assert "hunter2" not in json.dumps(result)
    assert {entry["path"] for entry in result["not_analysed"]} >= {"a.c", "b.c"}


def test_what_cannot_be_compiled_is_not_analysed_and_costs_nothing_else(scan_json: Scan, tree: Path) -> None:
    """A header that is missing, or an error, must never look like a file without warnings."""
    (tree / "b.c").write_text("#include <no_such_header.h>\nint g;\n")
    (tree / "c.c").write_text("int h(\n")
    (tree / "-o x.c").write_text("static int lonely(void) { return 1; }\n")

    result = scan_json(tree, "--detectors", "compiler-warnings,clang-tidy")
    reasons = {(entry["path"], entry["detector"]): entry["reason"] for entry in result["not_analysed"]}

    assert {reasons.pop(("b.c", name)) for name in ("compiler-warnings", "clang-tidy")} == {"header-missing"}
    assert {reasons.pop(("c.c", name)) for name in ("compiler-warnings", "clang-tidy")} == {"parse-error"}
    assert reasons == {}
    assert {f["path"] for f in result["findings"] if f["rule"] == "compiler-warnings/unused-function"} == {"-o x.c"}
    assert RULES["clang-tidy"] in {f["rule"] for f in result["findings"]}


def test_an_edited_header_runs_again_exactly_who_reads_it(scan_json: Scan, tree: Path, tmp_path: Path) -> None:
    """A stale result would be sealed as evidence of sources that it never saw."""
    (tree / "alone.c").write_text("int alone;\n")
    cache = tmp_path / "cache"
    command = (tree, "--detectors", "compiler-warnings", "--cache", cache)

    first = scan_json(*command)["summary"]
    again = scan_json(*command)["summary"]
    (tree / "h.h").write_text("#ifndef H\n#define H\nint f(int n, int unused);\nint g(void);\n#endif\n")
    edited = scan_json(*command)["summary"]
    (tree / "alone.c").write_text("int alone = 1;\n")
    unit = scan_json(*command)["summary"]

    assert [(s["executed"], s["cached"]) for s in (first, again, edited, unit)] == [(3, 0), (0, 3), (2, 1), (1, 2)]


def test_a_suppression_of_rule_10_is_heard_and_judged(scan_json: Scan, tree: Path) -> None:
    """Whoever excuses a warning does it with a reason and an owner, as for any other rule."""
    excused = BAD.replace("int unused)", "int unused) /* p10: ignore[R10] kept for callers by A. Reviewer */")
    stale = excused.replace("int k;", "int k; /* p10: ignore[R10] nothing is here by A. Reviewer */")
    (tree / "a.c").write_text(stale)

    found = scan_json(tree, "--detectors", "power-of-ten-c,compiler-warnings")["findings"]

    assert [f["suppressed"] for f in found if f["rule"] == RULES["compiler-warnings"]] == [True]
    assert [f["line"] for f in found if f["rule"] == "P10-suppression-unused"] == [4]
