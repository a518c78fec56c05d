"""
Every error the engine raises, as one tree:

    DetectorPoolError              exit 3
    ├── UsageError                 exit 2   wrong arguments or input
    │   ├── UnknownDetector
    │   └── ConfigurationError
    ├── AccessDenied               exit 6   the access policy does not let this person do this
    ├── ExecutionError             exit 3   one execution of a pool has no value; found in its result, never raised
    │   ├── CircuitOpen
    │   ├── ExecutionTimedOut
    │   ├── IsolatedCrash
    │   ├── NotTransferable
    │   └── ForeignError
    ├── DetectorBroken             exit 3   a detector cannot be loaded or broke its contract
    │   └── DetectorWroteFiles
    ├── ToolError                  exit 3   a foreign process went wrong; the executor turns it into *not analysed*
    │   ├── ToolMissing
    │   ├── ToolTimedOut
    │   ├── ToolCrashed
    │   └── ToolOutputInvalid
    ├── SourceChanged              exit 3   a file is no longer the one the snapshot saw
    ├── ClusterError               exit 3   the Dask cluster cannot be started or reached
    │   └── ClusterLost
    └── FormatTooNew               exit 2   a file on disk was written by a newer version

An expected outcome is a value (`model.NotAnalysed`), never one of these. Every class passes all its arguments to
`Exception.__init__`, because Dask moves errors between processes by pickling `args`.
"""

from __future__ import annotations

from typing import ClassVar

__all__ = [
    "AccessDenied",
    "CircuitOpen",
    "ClusterError",
    "ClusterLost",
    "ConfigurationError",
    "DetectorBroken",
    "DetectorPoolError",
    "DetectorWroteFiles",
    "ExecutionError",
    "ExecutionTimedOut",
    "ForeignError",
    "FormatTooNew",
    "IsolatedCrash",
    "NotTransferable",
    "SourceChanged",
    "ToolCrashed",
    "ToolError",
    "ToolMissing",
    "ToolOutputInvalid",
    "ToolTimedOut",
    "UnknownDetector",
    "UsageError",
]


class DetectorPoolError(Exception):
    """Base of every error of this project; `exit_code` is what the command line ends with."""

    exit_code: ClassVar[int] = 3


class UsageError(DetectorPoolError):
    """The caller asked for something that cannot be done; the message says what would work."""

    exit_code = 2


class UnknownDetector(UsageError):
    """A detector name that is not registered."""

    def __init__(self, name: str, suggestion: str | None = None) -> None:
        super().__init__(name, suggestion)
        self.name, self.suggestion = name, suggestion

    def __str__(self) -> str:
        hint = f"; did you mean {self.suggestion!r}?" if self.suggestion else ""
        return f"there is no detector named {self.name!r}{hint} (`detector-pool detectors list` shows all)"


class ConfigurationError(UsageError):
    """A setting that is not known or not valid."""


class AccessDenied(DetectorPoolError):
    """The access policy does not let this person do this."""

    exit_code = 6

    def __init__(self, action: str, target: str, reason: str) -> None:
        super().__init__(action, target, reason)
        self.action, self.target, self.reason = action, target, reason

    def __str__(self) -> str:
        on = repr(self.target) if self.action in {"run", "register"} else f"the {self.target}"
        return f"you may not {self.action} {on}: {self.reason}"


class ExecutionError(DetectorPoolError):
    """One execution of a pool has no value; it stands in the result and hides no other."""


class CircuitOpen(ExecutionError):
    """The detector failed so often that it is not tried for a while."""

    def __init__(self, detector: str, retry_after_s: float) -> None:
        super().__init__(detector, retry_after_s)
        self.detector, self.retry_after_s = detector, retry_after_s

    def __str__(self) -> str:
        return (
            f"{self.detector} was not run: its circuit breaker is open after repeated failures; "
            f"it is tried again in {self.retry_after_s:.1f} s"
        )


class ExecutionTimedOut(ExecutionError):
    """The execution was ended, with all of its processes, after `limit_s` seconds."""

    def __init__(self, detector: str, limit_s: float) -> None:
        super().__init__(detector, limit_s)
        self.detector, self.limit_s = detector, limit_s

    def __str__(self) -> str:
        return f"{self.detector} was ended after {self.limit_s:g} s (`timeout_s` of its registration)"


class IsolatedCrash(ExecutionError):
    """The process that ran the execution died: a crash, an exit, or a kill from outside."""

    def __init__(self, detector: str, exit_code_seen: int, diagnostics: str) -> None:
        super().__init__(detector, exit_code_seen, diagnostics)
        self.detector, self.exit_code_seen, self.diagnostics = detector, exit_code_seen, diagnostics

    def __str__(self) -> str:
        code = self.exit_code_seen
        how = f"by signal {-code}" if code < 0 else f"with exit code {code}"
        told = f": {self.diagnostics.strip()[-400:]}" if self.diagnostics.strip() else ""
        return f"the process that ran {self.detector} ended {how}{told}"


class NotTransferable(ExecutionError):
    """A function, an argument or a result cannot travel between processes."""

    def __init__(self, detector: str, what: str, problem: str) -> None:
        super().__init__(detector, what, problem)
        self.detector, self.what, self.problem = detector, what, problem

    def __str__(self) -> str:
        return f"the {self.what} of {self.detector} cannot be sent between processes: {self.problem}"


class ForeignError(ExecutionError):
    """An isolated detector raised an exception that itself cannot travel; its words are kept."""

    def __init__(self, detector: str, kind: str, words: str) -> None:
        super().__init__(detector, kind, words)
        self.detector, self.kind, self.words = detector, kind, words

    def __str__(self) -> str:
        return f"{self.detector} raised {self.kind}: {self.words}"


class DetectorBroken(DetectorPoolError):
    """A detector cannot be imported, or does not keep the contract of `detectors.detector`."""

    def __init__(self, origin: str, problem: str) -> None:
        super().__init__(origin, problem)
        self.origin, self.problem = origin, problem

    def __str__(self) -> str:
        return (
            f"detector code in {self.origin} is broken: {self.problem}; "
            "nothing was scanned, since a missing detector would look like a clean tree"
        )


class DetectorWroteFiles(DetectorBroken):
    """A detector changed, added or removed a file that it was given to read."""

    def __init__(self, detector: str, files: tuple[str, ...]) -> None:
        shown = ", ".join(files[:5]) + (" …" if len(files) > 5 else "")
        DetectorPoolError.__init__(self, detector, files)
        self.detector, self.files = detector, files
        self.origin, self.problem = detector, f"it wrote to the files under analysis: {shown}"

    def __str__(self) -> str:
        return f"detector {self.detector!r} broke its contract: {self.problem}; its results were thrown away"


class ToolError(DetectorPoolError):
    """A wrapped tool went wrong on a batch of files."""


class ToolMissing(ToolError):
    """The tool is not installed; its files become *not analysed*."""

    def __init__(self, tool: str, how_to_get: str) -> None:
        super().__init__(tool, how_to_get)
        self.tool, self.how_to_get = tool, how_to_get

    def __str__(self) -> str:
        return f"{self.tool} is not installed; {self.how_to_get}"


class ToolTimedOut(ToolError):
    """The tool was ended after `limit_s` seconds."""

    def __init__(self, tool: str, limit_s: float, files: int) -> None:
        super().__init__(tool, limit_s, files)
        self.tool, self.limit_s, self.files = tool, limit_s, files

    def __str__(self) -> str:
        return f"{self.tool} was ended after {self.limit_s:g} s on a batch of {self.files} files"


class ToolCrashed(ToolError):
    """The tool ended by a signal, or with an exit code that it gives to no finished analysis."""

    def __init__(self, tool: str, exit_code_seen: int, diagnostics: str) -> None:
        super().__init__(tool, exit_code_seen, diagnostics)
        self.tool, self.exit_code_seen, self.diagnostics = tool, exit_code_seen, diagnostics

    def __str__(self) -> str:
        how = (
            f"by signal {-self.exit_code_seen}" if self.exit_code_seen < 0 else f"with exit code {self.exit_code_seen}"
        )
        return f"{self.tool} ended {how}: {self.diagnostics.strip()[-400:]}"


class ToolOutputInvalid(ToolError):
    """The tool's output cannot be read as what the tool promises."""

    def __init__(self, tool: str, problem: str) -> None:
        super().__init__(tool, problem)
        self.tool, self.problem = tool, problem

    def __str__(self) -> str:
        return f"the output of {self.tool} cannot be understood: {self.problem}"


class SourceChanged(DetectorPoolError):
    """A file changed or vanished between the snapshot and its analysis."""

    def __init__(self, path: str, problem: str) -> None:
        super().__init__(path, problem)
        self.path, self.problem = path, problem

    def __str__(self) -> str:
        return f"{self.path} {self.problem} while the scan was running; scan again"


class ClusterError(DetectorPoolError):
    """The Dask cluster cannot be started or reached."""


class ClusterLost(ClusterError):
    """The Dask cluster was there and is gone; what was finished is in the cache, and a new cluster does the rest."""


class FormatTooNew(UsageError):
    """A cache, index or ledger on disk was written by a newer version of this project."""

    def __init__(self, what: str, found: int, known: int) -> None:
        super().__init__(what, found, known)
        self.what, self.found, self.known = what, found, known

    def __str__(self) -> str:
        return (
            f"{self.what} has format version {self.found}, this release knows {self.known}; "
            "use the release that wrote it, or name another folder"
        )
