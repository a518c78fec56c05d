"""What a benchmark dimension is, and how all are found: one dimension, one file of `detectors.dimensions`."""

from __future__ import annotations

import abc
import contextlib
import importlib
import inspect
import json
import os
import pkgutil
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import msgspec

from detectors.benchmark_record import Figure, Frame
from detectors.benchmark_work import Work
from detectors.errors import DetectorPoolError, UsageError

__all__ = ["BenchmarkFailed", "CommandRun", "Dimension", "answer", "checked", "command", "find_dimensions", "timed"]

COMMAND_LIMIT_S = 3_600.0
LOOK_S = 0.02


class BenchmarkFailed(DetectorPoolError):
    """What is measured did not do its work, so that there is no figure of it."""


class Dimension(abc.ABC):
    """One dimension: `name`, `share`, and how it is measured; its docstring says on what."""

    name: ClassVar[str]
    share: ClassVar[float]
    """Of the time of a whole suite, relative to the other dimensions."""
    by_name_only: ClassVar[bool] = False
    """Whether it takes too long, or asks for too much, to be in a suite that does not name it."""
    profile: Frame | None = None
    """Where the time went, if it looked."""

    @abc.abstractmethod
    def measure(self, work: Work) -> Iterator[Figure]:
        """
        Measure within the work's budget and yield the figures.

        Raises:
            BenchmarkFailed: What is measured did not do its work.
            DetectorPoolError: It could not be measured here.
        """


class CommandRun(msgspec.Struct, frozen=True):
    """One run of a command, from start to end."""

    seconds: float
    cpu_s: float
    """Of the command and all that it waited for."""
    peak_mb: float
    """Resident, of the process itself, as last seen before it ended."""
    own_cpu_s: float
    """Of the process itself, as last seen before it ended."""
    output: bytes
    code: int

    def of(self, output: bytes) -> CommandRun:
        """Return it with what it wrote in place of what it printed."""
        assert not self.output, "an answer is printed or written"
        assert output, "what was written is not empty"
        return msgspec.structs.replace(self, output=output)


def find_dimensions() -> dict[str, Dimension]:
    """
    Return the dimensions of `detectors.dimensions` by name, in alphabetical order.

    Raises:
        UsageError: Two have one name.
    """
    package = importlib.import_module("detectors.dimensions")
    found: dict[str, Dimension] = {}
    for info in pkgutil.iter_modules(package.__path__, "detectors.dimensions."):
        module = importlib.import_module(info.name)
        for cls in vars(module).values():
            if inspect.isclass(cls) and issubclass(cls, Dimension) and cls.__module__ == module.__name__:
                if cls.name in found:
                    raise UsageError(f"two dimensions are called {cls.name}")
                found[cls.name] = cls()
    assert found, "the package holds the dimensions"
    assert all(found), "each has a name"
    assert all(dimension.share > 0 for dimension in found.values()), "each takes some time"
    return dict(sorted(found.items()))


def timed(run: Callable[[], object]) -> float:
    """Return the wall seconds of a call."""
    began = time.perf_counter()
    _ = run()
    spent = time.perf_counter() - began
    assert callable(run), "what is timed is called"
    assert spent >= 0, "the clock is monotonic"
    return spent


def checked(results: Sequence[Any]) -> Sequence[Any]:
    """
    Return results of a pool, all of which have a value.

    Raises:
        BenchmarkFailed: One has none; the first error stands in the message.
    """
    failed = [result for result in results if result.error is not None]
    if failed:
        raise BenchmarkFailed(f"{len(failed)} of {len(results)} executions failed; the first: {failed[0].error}")
    assert results, "something was executed"
    assert all(result.ok for result in results), "each has a value"
    return results


def command(
    *words: str | Path, home: Path, codes: tuple[int, ...] = (0,), program: str | None = None,
    environment: Mapping[str, str] | None = None, cwd: Path | None = None,
) -> CommandRun:  # fmt: skip
    """
    Run a program to its end and return what it took.

    Args:
        words: Its arguments.
        home: What `DETECTOR_POOL_HOME` is set to.
        codes: Exit codes that are expected.
        program: Another program than `detector-pool`.
        environment: More variables.
        cwd: Where it runs.

    Raises:
        BenchmarkFailed: It ended otherwise, or did not end within an hour.
    """
    own = shutil.which("detector-pool", path=str(Path(sys.executable).parent)) or shutil.which("detector-pool")
    if program is None and own is None:
        raise BenchmarkFailed("the command detector-pool is not installed beside this Python")
    given = [str(program or own), *map(str, words)]
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("DETECTOR_POOL", "PYTHONDONT"))}
    kept |= {"DETECTOR_POOL_HOME": str(home), **(environment or {})}
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        began = time.perf_counter()
        process = subprocess.Popen(given, stdout=output, stderr=errors, env=kept, cwd=cwd, start_new_session=True)
        watcher = _Watcher(process.pid)
        try:
            _, status, usage = os.wait4(process.pid, 0)
        finally:
            peak_mb, own_cpu_s = watcher.end()
        seconds = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        _ = output.seek(0), errors.seek(0)
        printed, told = output.read(), errors.read()
    if process.returncode not in codes:
        last = told.decode("utf-8", "replace").strip().splitlines()[-3:]
        raise BenchmarkFailed(f"{' '.join(given[:3])} ended with {process.returncode}: {'; '.join(last)}")
    assert seconds > 0, "a process takes time"
    assert process.returncode in codes, "it ended as was expected"
    return CommandRun(
        seconds, usage.ru_utime + usage.ru_stime, peak_mb, own_cpu_s, printed, process.returncode
    )  # fmt: skip


class _Watcher:
    """
    Looks at the peak memory and the processor time of a process, and ends it after an hour.

    The kernel's own account at the end (`ru_maxrss`) will not do: it begins with what the parent had.
    """

    def __init__(self, pid: int) -> None:
        if pid <= 0:
            raise UsageError(f"{pid} is no process")
        self._pid, self._peak_mb, self._cpu_s = pid, 0.0, 0.0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()
        assert self._thread.daemon, "it never keeps this process from ending"

    def end(self) -> tuple[float, float]:
        """Stop looking, and return the peak in MB and seconds of its processor time."""
        assert not self._over.is_set(), "it ends once"
        self._over.set()
        self._thread.join()
        assert min(self._peak_mb, self._cpu_s) >= 0, "what is used is none or some"
        return self._peak_mb, self._cpu_s

    def _look(self) -> None:
        assert COMMAND_LIMIT_S > LOOK_S, "it looks more than once"
        for _ in range(int(COMMAND_LIMIT_S / LOOK_S)):
            with contextlib.suppress(OSError):  # it has ended
                text = Path(f"/proc/{self._pid}/status").read_text("ascii", "replace")
                found = re.search(r"^VmHWM:\s+(\d+) kB", text, re.MULTILINE)
                self._peak_mb = max(self._peak_mb, int(found.group(1)) / 1_024 if found else 0.0)
                # After the name, which may hold spaces, in brackets: see proc(5).
                fields = Path(f"/proc/{self._pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
                self._cpu_s = max(self._cpu_s, (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"))
            if self._over.wait(LOOK_S):
                return
        os.killpg(self._pid, signal.SIGKILL)


def answer(run: CommandRun) -> dict[str, Any]:
    """Return the JSON object that a command printed."""
    try:
        found = json.loads(run.output)
    except ValueError as problem:
        raise BenchmarkFailed(f"a command printed no JSON: {problem}") from problem
    assert run.output, "a command that printed nothing was noticed above"
    if not isinstance(found, dict):
        raise BenchmarkFailed("a command printed JSON that is no object")
    return found
