"""
What clang-tidy, cppcheck's MISRA add-on and gcc say of the C files of a tree, each in a process of its own.

The tools read one configuration, this machine's. What of a file they saw is told by gcc's preprocessor with the same
flags, so that code of other platforms is not held against them. No configuration and no compile database of the tree
is used: folders of headers are derived from what the tree includes, and everything else comes from the operator.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import os
import random
import re
import shutil
import sysconfig
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec

from detectors.errors import ToolError
from detectors.sandbox import Limits, run

__all__ = ["Answers", "Message", "Preprocessed", "Tree", "ask", "headers_of", "preprocess", "versions"]

Answer = TypeVar("Answer", bound=Mapping[str, set[int]] | frozenset["Message"])
SUFFIXES = (".c", ".h")
MAX_SOURCE_BYTES = 4_000_000
LIMITS = Limits(wall_s=900.0, cpu_s=600)
CLANG_TIDY_CHECKS = (
    "bugprone-assert-side-effect",
    "bugprone-infinite-loop",
    "bugprone-too-small-loop-variable",
    "bugprone-unused-return-value",
    "cert-err33-c",
    "clang-analyzer-core.NullDereference",
    "clang-analyzer-deadcode.DeadStores",
    "clang-diagnostic-missing-variable-declarations",
    "clang-diagnostic-unused-but-set-variable",
    "clang-diagnostic-unused-result",
    "clang-diagnostic-vla",
    "misc-no-recursion",
    "misc-use-internal-linkage",
    "readability-function-size",
)
CLANG_TIDY_SETTINGS = """\
Checks: '-*,{checks}'
HeaderFilterRegex: '.*'
CheckOptions:
  readability-function-size.LineThreshold: 60
  readability-function-size.StatementThreshold: 1000000
  misc-use-internal-linkage.FixMode: None
  bugprone-assert-side-effect.AssertMacros: '{assertions}'
"""
CLANG_WARNINGS = (
    "-w",
    "-Wsystem-headers",
    "-Wvla",
    "-Wmissing-variable-declarations",
    "-Wunused-but-set-variable",
    "-Wunused-result",
)
GCC_WARNINGS = ("-Wsystem-headers", "-Wall", "-Wextra", "-Wpedantic", "-Wshadow", "-Wconversion")
INCLUDE = re.compile(rb'^[ \t]*#[ \t]*include[ \t]*([<"])([^>"\n]+)[>"]', re.M)
ASSERTION = re.compile(rb"^[ \t]*#[ \t]*define[ \t]+(\w*assert\w*)\(", re.M | re.I)
CLANG_TIDY_LINE = re.compile(r"^(/.+?):(\d+):(\d+): (?:warning|error): (.*) \[([\w.,-]+)\]$", re.M)
LINE_MARKER = re.compile(r'^# (\d+) "((?:[^"\\]|\\.)*)"')
CONDITIONAL = re.compile(rb"[ \t]*#[ \t]*(?:if|ifdef|ifndef|elif|elifdef|elifndef|else|endif)\b")


@dataclasses.dataclass(frozen=True, order=True)
class Message:
    """What a tool says of a line, numbered from 1, of a file by its path below the tree."""

    path: str
    line: int
    check: str
    text: str


@dataclasses.dataclass(frozen=True)
class Preprocessed:
    """What gcc's preprocessor made of a tree's sources."""

    lines: Mapping[str, Mapping[str, set[int]]]
    """Source to the lines that it hands to the compiler, by file of the tree (itself, and headers)."""
    unread: tuple[tuple[str, str], ...]
    """(path, why) of sources for other machines, or whose headers are not here."""


@dataclasses.dataclass(frozen=True)
class Answers:
    """What one tool said of a tree."""

    messages: frozenset[Message]
    seen: Mapping[str, frozenset[int]]
    """Path to the lines that the tool compiled, in the files it read and the headers that these include."""
    read: tuple[str, ...]
    unread: tuple[tuple[str, str], ...]
    """(path, why) of files that the tool was asked about and could not read."""
    not_asked: tuple[str, ...]
    """Files that the seeded choice left out."""


class Tree:
    """
    The C files of a folder, and how to compile them one by one.

    Args:
        root: The folder.
        defines: `NAME` or `NAME=VALUE`, as the tree's build would give them.
    """

    def __init__(self, root: Path, defines: Sequence[str]) -> None:
        self.root = root.resolve()
        paths = sorted(p for p in self.root.rglob("*") if p.suffix in SUFFIXES and p.is_file() and not p.is_symlink())
        self.too_large = tuple(self.name(p) for p in paths if p.stat().st_size > MAX_SOURCE_BYTES)
        self.sources = {self.name(p): p.read_bytes() for p in paths if p.stat().st_size <= MAX_SOURCE_BYTES}
        self.units = tuple(name for name in self.sources if name.endswith(".c"))
        self.defines = tuple(f"-D{define}" for define in ("_GNU_SOURCE", *defines))
        found = {name.decode() for data in self.sources.values() for name in ASSERTION.findall(data)}
        self.assertions = tuple(sorted(found))
        self.folders = (*headers_of(self.sources), sysconfig.get_path("include"))

    def name(self, path: Path) -> str:
        """Return a path below the tree's root, with `/`."""
        return path.relative_to(self.root).as_posix()

    def flags(self) -> tuple[str, ...]:
        """Return the compilers' flags. A header of the system is found before one of the tree with its name."""
        folders = (argument for folder in self.folders for argument in ("-idirafter", str(self.root / folder)))
        return (*self.defines, *folders)


def headers_of(sources: Mapping[str, bytes]) -> tuple[str, ...]:
    """Return the folders, below the root, from which the tree's `#include`s are found; the most needed first."""
    by_name: dict[str, list[str]] = {}
    for path in sources:
        by_name.setdefault(path.rpartition("/")[2], []).append(path)
    wanted: dict[str, int] = {}
    for path, data in sources.items():
        folder = path.rpartition("/")[0]
        for mark, spelt in sorted(
            {(mark, os.path.normpath(name.decode("utf-8", "replace"))) for mark, name in INCLUDE.findall(data)}
        ):
            candidates = [p for p in by_name.get(spelt.rpartition("/")[2], ()) if p.endswith("/" + spelt)]
            if candidates and not (mark == b'"' and f"{folder}/{spelt}" in sources):
                nearest = max(candidates, key=lambda p: (len(os.path.commonpath([p, path])), -len(p), p))
                above = nearest.removesuffix(spelt).rstrip("/")
                wanted[above] = wanted.get(above, 0) + 1
    return tuple(sorted(wanted, key=lambda above: (-wanted[above], above)))


def preprocess(tree: Tree, gcc: str, jobs: int) -> Preprocessed:
    """Learn which of the tree's sources compile here as far as their headers go, and which of their lines then do."""

    def answer(path: str, work: Path) -> dict[str, set[int]]:
        return _compiled_lines(tree, path, gcc, work)

    return Preprocessed(*_each(tree.units, answer, jobs))


def ask(
    tree: Tree, tool: str, compiled: Preprocessed, *, programs: Mapping[str, str], jobs: int, most_bytes: int, seed: int
) -> Answers:
    """
    Run a tool on the tree's sources.

    Args:
        tree: What to read.
        tool: `clang-tidy`, `cppcheck` or `gcc`.
        compiled: The tree's sources that can be preprocessed.
        programs: Path of each tool's program; gcc's is always needed.
        jobs: Processes at once.
        most_bytes: Sources are taken in seeded order, those left out that would make them more bytes than this.
        seed: Of that order.
    """
    said = {"clang-tidy": _clang_tidy, "cppcheck": _cppcheck, "gcc": _gcc}[tool]
    chosen = _chosen(tree, compiled.lines, most_bytes, seed)
    answers, unread = _each(chosen, lambda path, work: frozenset(said(tree, path, programs, work)), jobs)
    seen: dict[str, set[int]] = {}
    for path in answers:
        for name, numbers in compiled.lines[path].items():
            seen.setdefault(name, set()).update(numbers)
    return Answers(
        frozenset(message for messages in answers.values() for message in messages),
        {name: _whole_branches(tree.sources[name], numbers) for name, numbers in seen.items()},
        tuple(answers),
        unread,
        tuple(sorted(set(compiled.lines) - set(chosen))),
    )


def _each(
    paths: Iterable[str], answer: Callable[[str, Path], Answer], jobs: int
) -> tuple[dict[str, Answer], tuple[tuple[str, str], ...]]:
    """Return the answers for files, each given in an empty folder, and (path, why) of those without one."""
    answers: dict[str, Answer] = {}
    unread: list[tuple[str, str]] = []
    with tempfile.TemporaryDirectory() as folder, concurrent.futures.ThreadPoolExecutor(jobs) as pool:

        def one(numbered: tuple[int, str]) -> tuple[str, Answer | str]:
            scratch = Path(folder) / str(numbered[0])
            work = scratch / "work"
            work.mkdir(parents=True)
            try:
                return numbered[1], answer(numbered[1], work)
            except (ToolError, UnreadableError) as problem:
                return numbered[1], str(problem)
            finally:
                shutil.rmtree(scratch)

        for path, found in pool.map(one, enumerate(paths)):
            if isinstance(found, str):
                unread.append((path, found))
            else:
                answers[path] = found
    return answers, tuple(unread)


def versions(programs: Mapping[str, str]) -> dict[str, str]:
    """Return the first line that names a version, by tool."""
    found = {}
    for tool, program in programs.items():
        with tempfile.TemporaryDirectory() as folder:
            work = Path(folder) / "work"
            work.mkdir()
            text = run(tool, [program, "--version"], work, LIMITS, 0).stdout.decode()
        found[tool] = next((line.strip() for line in text.splitlines() if re.search(r"\d+\.\d+", line)), "unknown")
    return found


class UnreadableError(Exception):
    """A tool could not read a file as a whole."""


def _chosen(tree: Tree, paths: Iterable[str], most_bytes: int, seed: int) -> list[str]:
    order = list(paths)
    random.Random(seed).shuffle(order)
    chosen: list[str] = []
    total = 0
    for path in order:
        size = len(tree.sources[path])
        if total + size <= most_bytes:
            total += size
            chosen.append(path)
    return sorted(chosen)


def _compiled_lines(tree: Tree, path: str, gcc: str, work: Path) -> dict[str, set[int]]:
    """Return the lines that reach the compiler, by file of the tree."""
    done = run("gcc", [gcc, "-E", "-dD", *tree.flags(), str(tree.root / path)], work, LIMITS, 1)
    if done.exit_code:
        raise UnreadableError(_first_error(done.stderr.decode("utf-8", "replace")))
    found: dict[str, set[int]] = {}
    line, current = 0, None
    for text in done.stdout.decode("utf-8", "replace").splitlines():
        marker = LINE_MARKER.match(text)
        if marker is not None:
            line, current = int(marker[1]), _below(tree, marker[2])
        else:
            if current is not None and text.strip():
                found.setdefault(current, set()).add(line)
            line += 1
    return found


def _below(tree: Tree, path: str) -> str | None:
    """Return a path as the tree's own name of it, if it has one."""
    absolute = os.path.normpath(tree.root / path)
    name = os.path.relpath(absolute, tree.root)
    return name if name in tree.sources else None


def _whole_branches(source: bytes, lines: set[int]) -> frozenset[int]:
    """Fill up: where one line between two conditional directives was compiled, all of them were looked at."""
    found: set[int] = set()
    branch: list[int] = []
    for number, text in enumerate([*source.split(b"\n"), b"#endif"], 1):
        branch.append(number)
        if CONDITIONAL.match(text):
            if not lines.isdisjoint(branch):
                found.update(branch)
            branch = []
    return frozenset(found)


def _first_error(text: str) -> str:
    problem = next((line for line in text.splitlines() if "error:" in line), "it ended with an error")
    return problem.partition("error:")[2].strip() or problem


def _clang_tidy(tree: Tree, path: str, programs: Mapping[str, str], work: Path) -> Iterator[Message]:
    settings = work / "settings.yaml"
    values = {"checks": ",".join(CLANG_TIDY_CHECKS), "assertions": ",".join(("assert", *tree.assertions))}
    settings.write_text(CLANG_TIDY_SETTINGS.format(**values), encoding="utf-8")
    # `-idirafter` makes system folders of the tree's; what lies outside of the tree is dropped below.
    command = [
        programs["clang-tidy"],
        "--quiet",
        "--system-headers",
        f"--config-file={settings}",
        str(tree.root / path),
    ]
    done = run("clang-tidy", [*command, "--", *tree.flags(), *CLANG_WARNINGS], work, LIMITS, 1)
    text = done.stdout.decode("utf-8", "replace")
    for where, line, _, said, checks in CLANG_TIDY_LINE.findall(text):
        if "clang-diagnostic-error" in checks:
            raise UnreadableError(said)
        name = _below(tree, where)
        if name is not None:
            for check in checks.split(","):
                yield Message(name, int(line), check, said)


def _cppcheck(tree: Tree, path: str, programs: Mapping[str, str], work: Path) -> Iterator[Message]:
    predefined = work / "predefined.h"
    predefined.write_bytes(run("gcc", [programs["gcc"], "-dM", "-E", "-xc", "/dev/null"], work, LIMITS, 1).stdout)
    command = [programs["cppcheck"], "--quiet", "--enable=style,warning", "--addon=misra", "--max-configs=1"]
    command += ["--language=c", "--std=c11", "--library=posix,gnu", f"--include={predefined}", *tree.defines]
    command += [f"-I{tree.root / folder}" for folder in tree.folders[:-1]]
    command += ["--template={file}\t{line}\t{id}\t{message}", "--template-location=", str(tree.root / path)]
    done = run("cppcheck", command, work, LIMITS, 1)
    for text in done.stderr.decode("utf-8", "replace").splitlines():
        where, line, check, said = [*text.split("\t"), "", "", ""][:4]
        if check in {"syntaxError", "internalError", "internalAstError", "preprocessorErrorDirective", "cppcheckError"}:
            raise UnreadableError(said)
        name = _below(tree, where) if where else None
        if name is not None and line.isdigit():
            yield Message(name, int(line), check, said)


class _Caret(msgspec.Struct):
    file: str
    line: int


class _Location(msgspec.Struct):
    caret: _Caret


class _Diagnostic(msgspec.Struct):
    kind: str
    message: str
    locations: list[_Location]
    option: str = ""


def _gcc(tree: Tree, path: str, programs: Mapping[str, str], work: Path) -> Iterator[Message]:
    command = [programs["gcc"], "-fsyntax-only", "-fdiagnostics-format=json", *GCC_WARNINGS, *tree.flags()]
    done = run("gcc", [*command, str(tree.root / path)], work, LIMITS, 1)
    for text in done.stderr.splitlines():
        for said in msgspec.json.decode(text, type=list[_Diagnostic]) if text.startswith(b"[") else ():
            if said.kind in {"error", "fatal error"}:
                raise UnreadableError(said.message)
            name = _below(tree, said.locations[0].caret.file) if said.locations else None
            if name is not None and said.option:
                yield Message(name, said.locations[0].caret.line, said.option.removeprefix("-"), said.message)
