"""What compilers, clang-tidy and cppcheck print is read right; recorded from the real programs, so that none is needed."""

from __future__ import annotations

import pytest

from detectors.detector import ClosureTool
from detectors.errors import ToolCrashed, ToolOutputInvalid
from detectors.model import Completed, FileReport, NotAnalysed
from detectors.tools.clang_tidy import ClangTidy
from detectors.tools.compiler_warnings import CompilerWarnings
from detectors.tools.cppcheck import Cppcheck

GCC = """\
In file included from ./a.c:1:
./inc/h.h:2:12: warning: 'spare' defined but not used [-Wunused-function]
./a.c: In function 'f':
./a.c:3:14: warning: unused parameter 'n' [-Wunused-parameter]
./a.c:4:9: warning: this statement may fall through [-Wimplicit-fallthrough=]
./a.c:5:9: note: here
a.c:9:1: warning: ISO C forbids an empty translation unit [-Wpedantic]
"""
TIDY = """\
./a.c:2:18: warning: potential uncovered code path; add a default label [bugprone-unhandled-code-paths]
    2 | int f(int n){ switch(n){ case 1: n += 2; } }
      |               ^
inc/h.h:1:1: warning: elsewhere [bugprone-x]
./a.c:3:1: warning: told twice [cert-err33-c,bugprone-y]
"""
XML = """\
<?xml version="1.0" encoding="UTF-8"?>
<results version="2"><cppcheck version="2.10"/><errors>
<error id="nullPointer" severity="error" msg="Null pointer dereference: p"><location file="./a.c" line="2" column="9"/></error>
<error id="unusedStructMember" severity="style" msg="struct member &apos;S::a&apos; is never used."><location file="inc/h.h" line="1" column="2"/></error>
<error id="missingIncludeSystem" severity="information" msg="Cppcheck cannot find all the include files."/>
</errors></results>
"""
SOURCE = b"1\n2\n3\n4\n5\n6\n7\n8\n9\n"


def _read(tool: ClosureTool, exit_code: int, stdout: str = "", stderr: str = "") -> FileReport | NotAnalysed | None:
    return tool.parse(Completed(exit_code, stdout.encode(), stderr.encode(), 0.1), {"a.c": SOURCE}).get("a.c")


def _found(report: FileReport | NotAnalysed | None) -> list[tuple[int, str, str]]:
    assert isinstance(report, FileReport)
    return [(finding.region.start_line, finding.rule, finding.level) for finding in report.findings]


def test_warnings_of_a_compiler_count_in_their_own_file() -> None:
    """A warning of a header would be told once for each unit that includes it, on a line of another file."""
    assert _found(_read(CompilerWarnings(), 0, stderr=GCC)) == [
        (3, "compiler-warnings/unused-parameter", "warning"),
        (4, "compiler-warnings/implicit-fallthrough", "warning"),
        (9, "compiler-warnings/pedantic", "warning"),
    ]


def test_checks_of_clang_tidy_carry_their_first_name() -> None:
    """An alias would make two rules of one finding."""
    assert _found(_read(ClangTidy(), 0, stdout=TIDY)) == [
        (2, "clang-tidy/bugprone-unhandled-code-paths", "warning"),
        (3, "clang-tidy/cert-err33-c", "warning"),
    ]


def test_results_of_cppcheck_are_read_from_its_xml() -> None:
    """Its severities have other names than ours."""
    assert _found(_read(Cppcheck(), 0, "Checking a.c ...\n", XML)) == [(2, "cppcheck/nullPointer", "error")]


@pytest.mark.parametrize(
    ("tool", "stdout", "stderr", "reason", "detail"),
    [
        (
            CompilerWarnings(),
            "",
            "./a.c:1:10: fatal error: x.h: No such file or directory\n",
            "header-missing",
            "a.c:1: x.h",
        ),
        (
            CompilerWarnings(),
            "",
            "inc/../inc/h.h:2:1: error: unknown type name 'q'\n",
            "parse-error",
            "inc/h.h:2: unknown",
        ),
        (
            CompilerWarnings(),
            "",
            "/etc/x:1:1: error: unknown type name 'secret'\n",
            "parse-error",
            "/etc/x:1: an error in",
        ),
        (
            ClangTidy(),
            "./a.c:1:10: error: 'x.h' file not found [clang-diagnostic-error]\n",
            "",
            "header-missing",
            "a.c:1",
        ),
        (
            ClangTidy(),
            "./a.c:1:10: error: expected ')' [clang-diagnostic-error]\n",
            "",
            "parse-error",
            "a.c:1: expected",
        ),
    ],
)
def test_an_error_makes_the_file_not_analysed(
    tool: ClosureTool, stdout: str, stderr: str, reason: str, detail: str
) -> None:
    """Warnings after an error are not all that there are; what a file outside of the tree says is not shown."""
    answer = _read(tool, 1, stdout, stderr)

    assert isinstance(answer, NotAnalysed)
    assert answer.reason == reason
    assert answer.detail.startswith(detail)
    assert "secret" not in answer.detail


def test_what_cppcheck_cannot_parse_or_did_not_check_is_no_clean_file() -> None:
    """cppcheck ends with 0 in both cases."""
    broken = XML.replace("nullPointer", "syntaxError")

    answer = _read(Cppcheck(), 0, "Checking a.c ...\n", broken)

    assert isinstance(answer, NotAnalysed)
    assert answer.reason == "parse-error"
    assert _read(Cppcheck(), 0, "", XML) is None


@pytest.mark.parametrize("tool", [CompilerWarnings(), ClangTidy(), Cppcheck()])
def test_an_end_without_a_reason_is_a_crash(tool: ClosureTool) -> None:
    """A compiler that was killed has found nothing, which looks clean."""
    with pytest.raises((ToolCrashed, ToolOutputInvalid)):
        _read(tool, 3)
