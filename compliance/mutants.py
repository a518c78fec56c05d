"""
Mutants of real code: each operator plants a known violation, or its harmless twin, into a function of a real file.

A detector is right about a mutant when it reports more of the operator's rules in it than in the file as it was, and
right about the twin when it does not: what the real code has already counts for neither. Which files and functions are
taken is drawn from a seed.

Source: DeMillo, Lipton, Sayward, "Hints on Test Data Selection", IEEE Computer 11(4), 1978 (mutation); the twins keep a
detector that reports everything from a recall of 1 with a precision of 1.
"""

from __future__ import annotations

import ast
import itertools
import random
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from detectors.c_parsing import CFile
from detectors.detector import Detector
from detectors.errors import UsageError
from detectors.parsing import Unparsable

__all__ = ["OPERATORS", "Mutant", "Operator", "asked", "drawn", "matches"]

MutantLanguage = Literal["c", "python"]
SUFFIXES: dict[MutantLanguage, str] = {"c": ".c", "python": ".py"}
MAX_BYTES = 60_000
"""Of a file that is mutated: some hundred of them are read by every detector, three times."""
MAX_TREE_FILES = 100_000


class Operator(msgspec.Struct, frozen=True):
    """One way to break a rule."""

    name: str
    language: MutantLanguage
    rules: tuple[str, ...]
    """Beginnings of the rule ids that speak of it, such as `P10-R1` or `bandit/B307`."""
    planted: tuple[str, ...]
    """Lines put at the beginning of a function; `{call}` calls that function."""
    twin: tuple[str, ...]
    """Lines that look alike and break no rule."""


OPERATORS = (
    Operator(
        "goto", "c", ("P10-R1-goto", "P10-R1", "clang-tidy/cppcoreguidelines-avoid-goto"),
        ("goto mutant_end; mutant_end: ;",), ("/* goto mutant_end; */ ;",),
    ),
    Operator(
        "recursion", "c", ("P10-R1", "clang-tidy/misc-no-recursion"),
        ("if (0) { (void){call}; }",), ("if (0) { /* {call} */ }",),
    ),
    Operator(
        "endless-loop", "c", ("P10-R2", "clang-tidy/bugprone-infinite-loop"),
        ("{ int mutant_n = 1; while (mutant_n) { mutant_n = 1; } }",),
        ("{ int mutant_n; for (mutant_n = 0; mutant_n < 3; mutant_n++) { ; } }",),
    ),
    Operator(
        "unchecked-malloc", "c", ("P10-R3", "cppcheck/nullPointerOutOfMemory"),
        ("{ char *mutant_p = malloc(16); *mutant_p = 0; }",), ("{ char mutant_p[16]; mutant_p[0] = 0; }",),
    ),
    Operator(
        "gets", "c", ("flawfinder/gets", "cppcheck/getsCalled", "clang-tidy/clang-analyzer-security.insecureAPI.gets"),
        ("{ char mutant_line[16]; gets(mutant_line); }",), ("{ int mutant_gets = 0; mutant_gets++; }",),
    ),
    Operator("eval", "python", ("P10-R8", "bandit/B307"), ('eval("1 + 1")',), ('mutant_note = "eval(1 + 1)"',)),
    Operator(
        "recursion", "python", ("P10-R1",), ("if mutant_never:", "    {call}"), ("if mutant_never:", '    "{call}"'),
    ),
    Operator(
        "bare-except", "python", ("P10-R7", "bandit/B110", "ruff/E722"),
        ("try:", "    mutant_n = 1", "except:", "    pass"),
        ("try:", "    mutant_n = 1", "except ValueError:", "    raise"),
    ),
    Operator(
        # Not `while True` without a way out: rule 2 lets a server's loop run for ever.
        "unbounded-loop", "python", ("P10-R2",),
        ("while mutant_more():", "    mutant_n = 1"), ("for mutant_n in (1, 2, 3):", "    pass"),
    ),
    Operator(
        "shell", "python", ("bandit/B602", "bandit/B605"),
        ("import os", "os.system(mutant_name)"), ("import os", "os.getcwd()"),
    ),
)  # fmt: skip


class Mutant(msgspec.Struct, frozen=True):
    """A real file, as it was and with an operator's lines."""

    name: str
    """Of the file that is made, one for all three."""
    operator: Operator
    original: bytes
    planted: bytes
    twin: bytes


def asked(detector: Detector, operator: Operator) -> bool:
    """Tell whether a detector says that it speaks of what an operator plants."""
    assert operator.rules, "an operator breaks some rule"
    if operator.language not in detector.languages:
        return False
    known = [rule.id for rule in detector.rules()]
    if any(matches(rule, (asked_for,)) for rule in known for asked_for in operator.rules):
        return True
    # A tool of which the rules are not known beforehand names them `<tool>/<its own id>`.
    return any(rule.startswith(f"{detector.name}/") for rule in operator.rules)


def matches(rule: str, beginnings: Iterable[str]) -> bool:
    """Tell whether a rule's id is one of the given, or begins with one up to a dash."""
    assert rule, "a finding has a rule"
    return any(rule == one or rule.startswith(f"{one}-") for one in beginnings)


def drawn(sources: Path, seed: int, per_operator: int) -> list[Mutant]:
    """
    Draw mutants: for each operator so many files that have a fitting function.

    Args:
        sources: Tree of real code.
        seed: Of the draw.
        per_operator: How many; fewer where there are not so many files.

    Raises:
        UsageError: There is no such folder, or nothing in it that can be mutated.
    """
    if not sources.is_dir() or per_operator < 1:
        raise UsageError(f"--sources {sources} is no folder, or no mutants are asked for")
    chosen = random.Random(seed)  # noqa: S311  # a draw that whoever knows the seed repeats
    found: list[Mutant] = []
    for language, suffix in SUFFIXES.items():
        files = list(itertools.islice(_files(sources, suffix), MAX_TREE_FILES))
        used: Counter[Path] = Counter()
        for operator in (one for one in OPERATORS if one.language == language):
            # What was mutated least comes first: functions of one name in two files would answer for each other.
            order = sorted(chosen.sample(files, len(files)), key=used.__getitem__)
            made = itertools.islice(_mutants(order, operator, chosen), per_operator)
            for file, mutant in made:
                used[file] += 1
                found.append(mutant)
    if not found:
        raise UsageError(f"--sources {sources} has no C or Python file with a function that can be mutated")
    return found


def _files(sources: Path, suffix: str) -> Iterator[Path]:
    for file in sorted(sources.rglob(f"*{suffix}")):
        if file.is_file() and not file.is_symlink() and 0 < file.stat().st_size <= MAX_BYTES:
            yield file


def _mutants(files: Sequence[Path], operator: Operator, chosen: random.Random) -> Iterator[tuple[Path, Mutant]]:
    for number, file in enumerate(files):
        data = file.read_bytes()
        places = list(_c_places(data) if operator.language == "c" else _python_places(data))
        if not places:
            continue
        offset, indent, call = chosen.choice(places)
        planted, twin = (_with(data, offset, indent, call, lines) for lines in (operator.planted, operator.twin))
        assert len({data, planted, twin}) == 3, "each differs from the others"
        name = f"{operator.name}-{number}{SUFFIXES[operator.language]}"
        yield file, Mutant(name, operator, data, planted, twin)


def _with(data: bytes, offset: int, indent: str, call: str, lines: Sequence[str]) -> bytes:
    assert 0 <= offset <= len(data), "it lies in the file"
    text = "".join(f"{indent}{line.replace('{call}', call)}\n" for line in lines)
    return data[:offset] + text.encode() + data[offset:]


def _c_places(data: bytes) -> Iterator[tuple[int, str, str]]:
    """Yield where a line can be put at the beginning of a C function, with a call of that function."""
    try:
        parsed = CFile(data, "c")
        functions = parsed.functions if parsed.understood == 1.0 else ()
    except Unparsable:
        return
    for function in functions:
        after = data.find(b"\n", function.body)
        # Only where nothing else stands on the line of the brace.
        if function.parameters >= 0 and after > 0 and data[function.body : after].strip() == b"{":
            yield after + 1, "    ", f"{function.name}({', '.join(['0'] * function.parameters)})"


def _python_places(data: bytes) -> Iterator[tuple[int, str, str]]:
    """Yield where lines can be put at the beginning of a top-level Python function, with a call of that function."""
    if b"\r" in data or b"\f" in data:
        return
    try:
        tree = ast.parse(data)
    except (SyntaxError, ValueError, RecursionError):
        return
    starts = [0]
    for line in data.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    for node in tree.body:
        if not isinstance(node, ast.FunctionDef) or node.decorator_list:
            continue
        body = node.body[1:] if ast.get_docstring(node) is not None else node.body
        if not body or body[0].lineno == node.lineno:
            continue
        start = starts[body[0].lineno - 1]
        indent = data[start : start + body[0].col_offset]
        if not indent.strip() and not getattr(body[0], "decorator_list", None):
            yield start, indent.decode(), f"{node.name}()"
