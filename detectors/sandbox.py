"""
One foreign process on untrusted files: own group, limits, empty environment, scratch folder, whole group ended.

A tool never sees the scanned tree. It gets a `ShadowTree`: the bytes of its batch under names that no tool takes for
options or configuration, without the tree's configuration, ignore files, baselines, plugins or version control.
Its exit code is never the verdict; who is not accounted for in its output is *not analysed*.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Self

import msgspec

from detectors.canaries import Watch
from detectors.circuit_breaker import Breaker, BreakerPolicy
from detectors.closures import Context
from detectors.errors import (
    DetectorWroteFiles,
    ToolCrashed,
    ToolError,
    ToolMissing,
    ToolOutputInvalid,
    ToolTimedOut,
)
from detectors.model import Completed, FileReport, Language, NotAnalysed, Reason

if TYPE_CHECKING:
    from detectors.detector import ClosureTool, Tool

__all__ = [
    "Limits",
    "ShadowTree",
    "analyse_in_context",
    "analyse_obeying",
    "analyse_with_tool",
    "end_all",
    "lies_plainly",
    "network_isolated",
    "run",
    "safe_name",
]

Answers = dict[str, FileReport | NotAnalysed]
"""By report path."""
ARGUMENT_BYTES = 96 << 10
"""For the file names of one command: the kernel's 128 KiB a string and pre-commit's cap, less room for options."""
PLAIN_COMPONENT = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+-]{0,120}\Z")
PLAIN_NAME = re.compile(r"\.?[A-Za-z0-9_][A-Za-z0-9_.+-]{0,120}\Z")
CONFIGURATION = frozenset(
    {
        "compile_commands.json",
        "conftest.py",
        "mypy.ini",
        "pyproject.toml",
        "ruff.toml",
        "setup.cfg",
        "sitecustomize.py",
        "tox.ini",
        "usercustomize.py",
    }
)
"""Names that some tool or interpreter looks for by itself; in the shadow they are called something else."""
HARMLESS: dict[Language, tuple[str, bytes]] = {
    "c": ("harmless.c", b"int harmless;\n"),
    "cpp": ("harmless.cpp", b"int harmless;\n"),
    "python": ("harmless.py", b"harmless = 1\n"),
    "text": ("harmless.txt", b"harmless\n"),
}
"""Name and bytes of a file that every tool of a language can read."""
HARMLESS_S = 60.0
"""For which a tool may think about it."""


class Limits(msgspec.Struct, frozen=True):
    """What a foreign process may use."""

    wall_s: float = 300.0
    cpu_s: int = 600
    memory_bytes: int = 4 << 30
    file_size_bytes: int = 256 << 20
    """Also caps what it prints, which goes to files."""
    open_files: int = 1024


class _Running:
    """The process groups that are alive, so that an interrupt can end them from another thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._groups: set[int] = set()
        self.ended = 0

    def add(self, group: int) -> None:
        with self._lock:
            self._groups.add(group)

    def remove(self, group: int) -> None:
        with self._lock:
            self._groups.discard(group)

    def end(self) -> None:
        with self._lock:
            self.ended += 1
            for group in self._groups:
                _end_group(group)


_RUNNING = _Running()


def end_all() -> None:
    """End every tool that this process runs; their batches raise ToolError and are not tried again."""
    _RUNNING.end()


def run(  # noqa: PLR0917  # p10: ignore[R10] what one process is: program, place, bounds, input by the maintainers
    tool_name: str, argv: Sequence[str], cwd: Path, limits: Limits, n_files: int, given: bytes = b""
) -> Completed:
    """
    Run a foreign program to its end.

    Args:
        tool_name: For messages.
        argv: Program and arguments; no shell.
        cwd: Working directory; its parent is the scratch folder that holds home, temporary files and output.
        limits: What it may use.
        n_files: Size of the batch, for messages.
        given: Its standard input.

    Raises:
        ToolMissing: The program does not exist.
        ToolTimedOut: It was still running after `limits.wall_s`.
        ToolCrashed: It ended by a signal.
    """
    scratch = cwd.parent
    for name in ("home", "tmp"):
        (scratch / name).mkdir(exist_ok=True, mode=0o700)
    out, err, source = scratch / "stdout", scratch / "stderr", scratch / "stdin"
    source.write_bytes(given)
    clock = time.perf_counter()
    with out.open("wb") as stdout, err.open("wb") as stderr, source.open("rb") as stdin:
        try:
            process = subprocess.Popen(
                [*_prefix(limits), *argv],
                cwd=cwd,
                env=_environment(scratch),
                stdin=stdin,
                stdout=stdout,
                stderr=stderr,
                start_new_session=True,
                close_fds=True,
            )
        except OSError as problem:
            raise ToolMissing(tool_name, f"{argv[0]} cannot be started: {problem.strerror}") from problem
        _RUNNING.add(process.pid)
        try:
            exit_code = process.wait(limits.wall_s)
        except subprocess.TimeoutExpired:
            raise ToolTimedOut(tool_name, limits.wall_s, n_files) from None
        finally:
            # Also after a good end: what the tool left running must not outlive it.
            _end_group(process.pid)
            process.wait()
            _RUNNING.remove(process.pid)
    completed = Completed(exit_code, out.read_bytes(), err.read_bytes(), time.perf_counter() - clock)
    # `prlimit` and `unshare` pass a signal on as 128 + n only when they fork; a plain negative code is the rule.
    if exit_code < 0 or exit_code in {128 + signal.SIGXFSZ, 128 + signal.SIGXCPU}:
        raise ToolCrashed(tool_name, exit_code, _without(scratch, completed.stderr))
    return completed


@functools.cache
def network_isolated() -> bool:
    """Tell whether tools run without a network here (Linux user and network namespaces)."""
    unshare = shutil.which("unshare")
    if unshare is None:
        return False
    tried = subprocess.run([unshare, *_NAMESPACES, "true"], capture_output=True, check=False, timeout=30)
    return tried.returncode == 0


def safe_name(path: str) -> str:
    """
    Return the name that a file has in the shadow tree.

    Kept where every component is plain, so that what a tool derives from a path (`__init__.py`, `tests/`) still holds;
    else a name made of the path's digest and its suffix, the same in every run.
    """
    components = path.split("/")
    plain = all(PLAIN_COMPONENT.match(part) and part.lower() not in CONFIGURATION for part in components)
    if plain and len(path) <= 400 and components[0] != NEUTRAL:
        return path
    suffix = re.search(r"\.[A-Za-z0-9+]{1,8}\Z", components[-1])
    digest = hashlib.sha256(path.encode("utf-8", "surrogatepass")).hexdigest()[:24]
    return f"{NEUTRAL}/f{digest}{suffix.group() if suffix else ''}"


NEUTRAL = "renamed"
_NAMESPACES = ("--map-root-user", "--net", "--")


class ShadowTree:
    """
    The files of one batch in a scratch folder of their own; a context manager that removes it.

    Args:
        sources: Report path to bytes.
        obeyed: The same of files that a tool shall find under their own names, where it is let obey the tree.
    """

    def __init__(self, sources: Mapping[str, bytes], obeyed: Mapping[str, bytes] = MappingProxyType({})) -> None:
        own = {safe_name(path): data for path, data in sources.items()}
        self._sources = {**obeyed, **own}
        assert all(lies_plainly(path) for path in obeyed), "they are checked before, and lie below the folder"
        self.paths = {safe_name(path): path for path in sources}
        """Safe name to report path."""
        assert len(self.paths) == len(sources), "two paths share a safe name"

    def __enter__(self) -> Self:
        """Write the files, read-only."""
        self.scratch = Path(os.path.realpath(tempfile.mkdtemp(prefix="detector-")))
        self.folder = self.scratch / "src"
        self.folder.mkdir()
        for name, data in self._sources.items():
            file = self.folder / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(data)
            file.chmod(0o444)
        return self

    def __exit__(self, *_: object) -> None:
        """Remove the scratch folder with all that is in it."""
        shutil.rmtree(self.scratch, ignore_errors=True)

    def changed(self) -> tuple[str, ...]:
        """Return the report paths (or names) of files that were changed, removed or added."""
        seen: dict[str, os.stat_result] = {}
        for folder, _, names in os.walk(self.folder):
            for name in names:
                file = Path(folder, name)
                seen[str(file.relative_to(self.folder))] = file.lstat()
        odd = set(seen) ^ set(self._sources)
        for name in set(seen) & set(self._sources):
            regular = stat.S_ISREG(seen[name].st_mode)
            if not regular or (self.folder / name).read_bytes() != self._sources[name]:
                odd.add(name)
        return tuple(sorted(self.paths.get(name, name) for name in odd))


def analyse_with_tool(
    tool: Tool, sources: Mapping[str, bytes], breaker: Breaker | None = None, watch: Watch | None = None
) -> dict[str, FileReport | NotAnalysed]:
    """
    Run a tool on files; a batch that fails is halved until the file at fault is alone.

    Args:
        tool: The wrapped tool.
        sources: Report path to bytes.
        breaker: The tool's, told of each run; one of this call alone, if not given.
        watch: Canaries, which every run gets beside its files; of a run that misses one no answer counts.

    Returns:
        An answer for every key of `sources`.

    Raises:
        DetectorWroteFiles: The tool changed its files.
        ToolError: The run was ended by `end_all`.
    """
    if missing := tool.missing():
        return {path: NotAnalysed(path, tool.name, "tool-missing", missing) for path in sources}

    def once(_: Context, paths: Sequence[str]) -> Answers:
        return _analyse_once(tool, {path: sources[path] for path in paths}, watch or Watch(tool.name, ()))

    return _halving(tool, [(Context(), list(batch)) for batch in _argument_batches(sources)], once, breaker)


def lies_plainly(path: str) -> bool:
    """Tell whether a file of the tree may lie in a shadow tree under its own name, whatever that is."""
    *folders, name = path.split("/")
    return len(path) <= 400 and all(map(PLAIN_COMPONENT.match, folders)) and bool(PLAIN_NAME.match(name))


def analyse_obeying(tool: Tool, sources: Mapping[str, bytes]) -> dict[str, FileReport | NotAnalysed]:
    """
    Run a tool that is let obey its tree (`Tool.obeying`) on files; nothing is divided, and nothing tried again.

    Args:
        tool: One that reads no closures.
        sources: Report path to bytes.

    Raises:
        ToolError: It failed.
        DetectorWroteFiles: It changed its files.
    """
    assert tool.hears is not None, "who obeys nothing is run as in any scan"
    answers: Answers = {}
    for batch in _argument_batches(sources):
        answers |= _analyse_once(tool, batch, Watch(tool.name, ()))
    assert answers.keys() == sources.keys(), "each file has an answer"
    return answers


def analyse_in_context(
    tool: ClosureTool,
    sources: Mapping[str, bytes],
    support: Mapping[str, bytes],
    contexts: Mapping[str, Context],
    breaker: Breaker | None = None,
    *,
    watch: Watch | None = None,
) -> dict[str, FileReport | NotAnalysed]:
    """
    Run a tool that reads closures, in one scratch folder that holds files and closures.

    Args:
        tool: The wrapped tool.
        sources: Report path to bytes, of what is asked about.
        support: The same of what is read beside it.
        contexts: By report path; a file without one has an empty context.
        breaker: The tool's, told of each run; one of this call alone, if not given.
        watch: Canaries. A tool that takes one file a run gets them in runs of their own, once a batch: one beside each
            file would double the runs, and what makes such a tool dumb (its program, its options, its machine) is the
            same for all runs of a batch. Any other gets them in every run.

    Returns:
        An answer for every key of `sources`.

    Raises:
        DetectorWroteFiles: The tool changed its files.
        ToolError: The run was ended by `end_all`.
    """
    if missing := tool.missing():
        return {path: NotAnalysed(path, tool.name, "tool-missing", missing) for path in sources}
    watch = watch or Watch(tool.name, ())
    known = watch.sources()
    together = tool.files_per_run > 1
    with ShadowTree({path: tool.prepare(data) for path, data in {**support, **sources, **known}.items()}) as shadow:

        def once(context: Context, paths: Sequence[str]) -> Answers:
            asked = {path: sources[path] for path in paths}
            said = _answers(tool, shadow, _safe(context), {**asked, **known} if together else asked)
            return _believed(watch, said) if together else said

        answers = _halving(tool, list(_runs(tool, sources, contexts)), once, breaker)
        # Where nothing was answered there is nothing to believe.
        if known and not together and any(isinstance(said, FileReport) for said in answers.values()):
            answers = _believed(watch, answers | _alone(tool, shadow, known))
        if changed := shadow.changed():
            raise DetectorWroteFiles(tool.name, changed)
    return answers


def _halving(
    tool: Tool,
    runs: list[tuple[Context, list[str]]],
    once: Callable[[Context, Sequence[str]], Answers],
    breaker: Breaker | None,
) -> Answers:
    """Run each; one that fails is halved until the file at fault is alone, which is *not analysed*."""
    breaker = breaker or Breaker(BreakerPolicy())
    generation = _RUNNING.ended
    answers: Answers = {}
    killed: set[str] = set()
    # Each failure halves a run or is a file's only second try: no more than three times as many as files are needed.
    for _ in range(sum(3 * len(paths) + 1 for _, paths in runs)):
        if not runs:
            break
        if breaker.admit() is not None:
            left = [path for _, paths in runs for path in paths]
            answers |= {path: NotAnalysed(path, tool.name, "breaker-open", _left_alone(tool)) for path in left}
            runs.clear()
            break
        context, paths = runs.pop()
        try:
            answers |= once(context, paths)
            breaker.record(failed=False)
        except ToolMissing:
            breaker.record(failed=True)
            raise
        except ToolError as problem:
            if generation != _RUNNING.ended:
                raise
            # The files are untrusted: a row of failures is the tool's own if it fails on a harmless file, too.
            breaker.record(failed=not breaker.would_open() or not _works(tool, generation))
            if len(paths) == 1 and _killed(problem) and paths[0] not in killed:
                killed.add(paths[0])  # from outside, most likely: the memory ran out, or somebody ended it
                runs.append((context, paths))
            elif len(paths) == 1:
                answers[paths[0]] = NotAnalysed(paths[0], tool.name, _reason(problem), _told(problem))
            else:
                middle = len(paths) // 2
                runs += [(context, paths[:middle]), (context, paths[middle:])]
    assert not runs, "a run was neither finished nor given up"
    return answers


def _killed(problem: ToolError) -> bool:
    return isinstance(problem, ToolCrashed) and problem.exit_code_seen == -signal.SIGKILL


def _alone(tool: ClosureTool, shadow: ShadowTree, canaries: Mapping[str, bytes]) -> Answers:
    """Run a tool on each canary by itself; one whose run fails has no answer."""
    generation = _RUNNING.ended
    answers: Answers = {}
    for name, data in canaries.items():
        try:
            answers |= _answers(tool, shadow, Context(), {name: data})
        except ToolError:
            if generation != _RUNNING.ended:
                raise
    assert answers.keys() <= canaries.keys(), "answers are about what was asked"
    return answers


def _believed(watch: Watch, answers: Answers) -> Answers:
    """Take the canaries out of a run's answers; where one was missed, no other answer counts."""
    names = watch.sources().keys()
    others = {path: said for path, said in answers.items() if path not in names}
    if not names:
        return others
    missing = watch.judge(answers)
    return watch.distrusted(others, missing) if missing else others


def _works(tool: Tool, generation: int) -> bool:
    """Tell whether a tool can be run on a harmless file; raises ToolError where `end_all` ended it."""
    known = [language for language in HARMLESS if language in tool.languages]
    name, data = HARMLESS[known[0] if known else "text"]
    assert data, "an empty file would not say much"
    with ShadowTree({name: tool.prepare(data)}) as shadow:
        limits = msgspec.structs.replace(_limits(tool), wall_s=min(tool.limit_s, HARMLESS_S))
        try:
            completed = run(tool.name, tool.command([name]), shadow.folder, limits, 1)
            _read(tool, shadow, completed, {name: data})
        except ToolError:
            if generation != _RUNNING.ended:
                raise
            return False
    return True


def _left_alone(tool: Tool) -> str:
    failures = BreakerPolicy().failures
    return f"{tool.name} failed {failures} times in a row, on a harmless file too, and was left alone after that"


def _runs(
    tool: ClosureTool, sources: Mapping[str, bytes], contexts: Mapping[str, Context]
) -> Iterator[tuple[Context, list[str]]]:
    alike: dict[Context, dict[str, bytes]] = {}
    for path, data in sources.items():
        alike.setdefault(contexts.get(path, Context()), {})[path] = data
    for context, files in alike.items():
        for part in _argument_batches(files):
            paths = list(part)
            for start in range(0, len(paths), tool.files_per_run):
                yield context, paths[start : start + tool.files_per_run]


def _safe(context: Context) -> Context:
    """Return the context with the names that its folders and files have in the shadow tree."""
    search = tuple(safe_name(folder) if folder else "." for folder in context.search)
    flags = list(context.flags)
    for place, flag in enumerate(flags[:-1]):
        if flag == "-include":
            flags[place + 1] = f"./{safe_name(flags[place + 1])}"
    return msgspec.structs.replace(context, search=search, flags=tuple(flags))


def _answers(
    tool: ClosureTool, shadow: ShadowTree, context: Context, sources: Mapping[str, bytes]
) -> dict[str, FileReport | NotAnalysed]:
    asked = {safe_name(path): data for path, data in sources.items()}
    completed = run(tool.name, tool.command_in(context, sorted(asked)), shadow.folder, _limits(tool), len(asked))
    return _read(tool, shadow, completed, asked)


def _analyse_once(tool: Tool, files: Mapping[str, bytes], watch: Watch) -> dict[str, FileReport | NotAnalysed]:
    sources = {**files, **watch.sources()}
    assert len(sources) == len(files) + len(watch.canaries), "no file has the name of a canary, which none can know"
    prepared = {path: tool.prepare(data) for path, data in sources.items()}
    with ShadowTree(prepared, tool.obeyed) as shadow:
        names = sorted(shadow.paths)
        completed = run(tool.name, tool.command(names), shadow.folder, _limits(tool), len(names))
        changed = shadow.changed()
        if changed:
            raise DetectorWroteFiles(tool.name, changed)
        said = _read(tool, shadow, completed, {name: sources[shadow.paths[name]] for name in names})
        return _believed(watch, said)


def _limits(tool: Tool) -> Limits:
    return Limits(wall_s=tool.limit_s, cpu_s=int(tool.limit_s * 4), memory_bytes=tool.memory_bytes)


def _read(
    tool: Tool, shadow: ShadowTree, completed: Completed, asked: Mapping[str, bytes]
) -> dict[str, FileReport | NotAnalysed]:
    # Absolute paths go: results must be equal on every worker, and shared by all.
    place = os.fsencode(shadow.folder) + b"/"
    clean = msgspec.structs.replace(
        completed, stdout=completed.stdout.replace(place, b""), stderr=completed.stderr.replace(place, b"")
    )
    try:
        reports = tool.parse(clean, asked)
    except (KeyError, ValueError, TypeError, AttributeError, IndexError, msgspec.MsgspecError) as problem:
        raise ToolOutputInvalid(tool.name, f"{type(problem).__name__}: {problem}") from problem
    return {shadow.paths[name]: _owned(tool, shadow.paths[name], reports.get(name)) for name in asked}


def _owned(tool: Tool, path: str, report: FileReport | NotAnalysed | None) -> FileReport | NotAnalysed:
    match report:
        case None:
            return NotAnalysed(path, tool.name, "not-reported", f"{tool.name} did not say that it read this file")
        case NotAnalysed():
            return msgspec.structs.replace(report, path=path, detector=tool.name)
        case FileReport():
            return report


def _argument_batches(sources: Mapping[str, bytes]) -> Iterator[dict[str, bytes]]:
    batch: dict[str, bytes] = {}
    size = 0
    for path, data in sources.items():
        length = len(safe_name(path)) + 9
        if batch and size + length > ARGUMENT_BYTES:
            yield batch
            batch, size = {}, 0
        batch[path] = data
        size += length
    if batch:
        yield batch


def _prefix(limits: Limits) -> list[str]:
    """
    Return the programs that set limits before the tool begins.

    Util-linux does it between fork and exec, where Python code would be unsafe in a process with threads.
    """
    prefix: list[str] = []
    if network_isolated():
        prefix += [_found("unshare"), *_NAMESPACES]
    # After `unshare`, whose new credentials would clear it: the tool ends when this process is killed.
    if _found("setpriv"):
        prefix += [_found("setpriv"), "--pdeathsig", "KILL", "--"]
    if _found("prlimit"):
        prefix += [
            _found("prlimit"),
            f"--as={limits.memory_bytes}",
            f"--cpu={limits.cpu_s}",
            f"--fsize={limits.file_size_bytes}",
            f"--nofile={limits.open_files}",
            "--core=0",
            "--",
        ]
    return prefix


@functools.cache
def _found(program: str) -> str:
    return shutil.which(program, path="/usr/bin:/bin:/usr/sbin:/sbin") or ""


def _environment(scratch: Path) -> dict[str, str]:
    return {
        "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
        "HOME": str(scratch / "home"),
        "TMPDIR": str(scratch / "tmp"),
        "LC_ALL": "C.UTF-8",
        "TZ": "UTC",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONHASHSEED": "0",
        "NO_COLOR": "1",
    }


def _end_group(group: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)


def _without(scratch: Path, output: bytes) -> str:
    return output.decode("utf-8", "replace").replace(str(scratch / "src") + "/", "").replace(str(scratch), "")


def _reason(problem: ToolError) -> Reason:
    return "timed-out" if isinstance(problem, ToolTimedOut) else "crashed"


def _told(problem: ToolError) -> str:
    return str(problem)[:400]
