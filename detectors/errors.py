"""
Every error the engine raises, as one tree:

    DetectorPoolError              exit 3
    ├── UsageError                 exit 2   wrong arguments or input
    │   ├── UnknownDetector
    │   ├── ConfigurationError
    │   ├── RepositoryUnusable
    │   └── ImportUnusable
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
    ├── StoreUnavailable           exit 3   a shared store of results does not answer; a run goes on without it
    └── FormatTooNew               exit 2   a file on disk was written by a newer version

An expected outcome is a value (`model.NotAnalysed`), never one of these. An error that carries more than its message is
`told`: its fields are its arguments, and all of them are in `args`, because Dask moves errors between processes by
pickling those.
"""

from __future__ import annotations

import dataclasses
import string
from typing import ClassVar, TypeVar, dataclass_transform

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
    "ImportUnusable",
    "IsolatedCrash",
    "NotTransferable",
    "RepositoryUnusable",
    "SourceChanged",
    "StoreUnavailable",
    "ToolCrashed",
    "ToolError",
    "ToolMissing",
    "ToolOutputInvalid",
    "ToolTimedOut",
    "UnknownDetector",
    "UsageError",
]

Error = TypeVar("Error", bound="DetectorPoolError")


@dataclass_transform(eq_default=False)
def told(kind: type[Error]) -> type[Error]:
    """Make the annotations of a class of errors its arguments, in their order; `message` is a format over them."""
    fields = set(kind.__annotations__)
    assert fields, "an error without fields takes its message as the argument"
    named = {name for _, name, _, _ in string.Formatter().parse(kind.message) if name}
    assert named <= fields, "a message speaks of what the error carries"
    return dataclasses.dataclass(eq=False, repr=False, match_args=False)(kind)


class DetectorPoolError(Exception):
    """Base of every error of this project; `exit_code` is what the command line ends with."""

    exit_code: ClassVar[int] = 3
    message: ClassVar[str] = ""
    """Of a class that is `told`, or always says the same; the others take it as their argument."""

    def __post_init__(self) -> None:
        self.args = tuple(vars(self).values())

    def __str__(self) -> str:
        if not self.message:
            return super().__str__()
        return self.message.format_map(vars(self))


class UsageError(DetectorPoolError):
    """The caller asked for something that cannot be done; the message says what would work."""

    exit_code = 2


@told
class UnknownDetector(UsageError):
    """A detector name that is not registered."""

    name: str
    suggestion: str | None = None

    def __str__(self) -> str:
        hint = f"; did you mean {self.suggestion!r}?" if self.suggestion else ""
        return f"there is no detector named {self.name!r}{hint} (`detector-pool detectors list` shows all)"


class ConfigurationError(UsageError):
    """A setting that is not known or not valid."""


@told
class RepositoryUnusable(UsageError):
    """A git repository, or a commit of it, cannot be read."""

    where: str
    problem: str
    message = "the repository of {where} cannot be used: {problem}"


@told
class ImportUnusable(UsageError):
    """A file of another tool's results cannot be taken in; none of it is."""

    file: str
    problem: str
    message = "{file} cannot be imported: {problem}"


@told
class AccessDenied(DetectorPoolError):
    """The access policy does not let this person do this."""

    exit_code = 6

    action: str
    target: str
    reason: str

    def __str__(self) -> str:
        on = repr(self.target) if self.action in {"run", "register"} else f"the {self.target}"
        return f"you may not {self.action} {on}: {self.reason}"


class ExecutionError(DetectorPoolError):
    """One execution of a pool has no value; it stands in the result and hides no other."""


@told
class CircuitOpen(ExecutionError):
    """The detector failed so often that it is not tried for a while."""

    detector: str
    retry_after_s: float
    message = (
        "{detector} was not run: its circuit breaker is open after repeated failures; "
        "it is tried again in {retry_after_s:.1f} s"
    )


@told
class ExecutionTimedOut(ExecutionError):
    """The execution was ended, with all of its processes, after `limit_s` seconds."""

    detector: str
    limit_s: float
    message = "{detector} was ended after {limit_s:g} s (`timeout_s` of its registration)"


@told
class IsolatedCrash(ExecutionError):
    """The process that ran the execution died: a crash, an exit, or a kill from outside."""

    detector: str
    exit_code_seen: int
    diagnostics: str

    def __str__(self) -> str:
        last_words = f": {self.diagnostics.strip()[-400:]}" if self.diagnostics.strip() else ""
        return f"the process that ran {self.detector} ended {_how(self.exit_code_seen)}{last_words}"


@told
class NotTransferable(ExecutionError):
    """A function, an argument or a result cannot travel between processes."""

    detector: str
    what: str
    problem: str
    message = "the {what} of {detector} cannot be sent between processes: {problem}"


@told
class ForeignError(ExecutionError):
    """An isolated detector raised an exception that itself cannot travel; its words are kept."""

    detector: str
    kind: str
    words: str
    message = "{detector} raised {kind}: {words}"


@told
class DetectorBroken(DetectorPoolError):
    """A detector cannot be imported, or does not keep the contract of `detectors.detector`."""

    origin: str
    problem: str
    message = (
        "detector code in {origin} is broken: {problem}; "
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


@told
class ToolMissing(ToolError):
    """The tool is not installed; its files become *not analysed*."""

    tool: str
    how_to_get: str
    message = "{tool} is not installed; {how_to_get}"


@told
class ToolTimedOut(ToolError):
    """The tool was ended after `limit_s` seconds."""

    tool: str
    limit_s: float
    files: int
    message = "{tool} was ended after {limit_s:g} s on a batch of {files} files"


@told
class ToolCrashed(ToolError):
    """The tool ended by a signal, or with an exit code that it gives to no finished analysis."""

    tool: str
    exit_code_seen: int
    diagnostics: str

    def __str__(self) -> str:
        return f"{self.tool} ended {_how(self.exit_code_seen)}: {self.diagnostics.strip()[-400:]}"


@told
class ToolOutputInvalid(ToolError):
    """The tool's output cannot be read as what the tool promises."""

    tool: str
    problem: str
    message = "the output of {tool} cannot be understood: {problem}"


@told
class SourceChanged(DetectorPoolError):
    """A file changed or vanished between the snapshot and its analysis."""

    path: str
    problem: str
    message = "{path} {problem} while the scan was running; scan again"


class ClusterError(DetectorPoolError):
    """The Dask cluster cannot be started or reached."""


class ClusterLost(ClusterError):
    """The Dask cluster was there and is gone; what was finished is in the cache, and a new cluster does the rest."""


@told
class StoreUnavailable(DetectorPoolError):
    """A shared store of results does not answer, or refuses."""

    store: str
    problem: str
    message = "the store {store} cannot be used ({problem})"


@told
class FormatTooNew(UsageError):
    """A cache, index or ledger on disk was written by a newer version of this project."""

    what: str
    found: int
    known: int
    message = (
        "{what} has format version {found}, this release knows {known}; "
        "use the release that wrote it, or name another folder"
    )


def _how(exit_code: int) -> str:
    """Return how a process ended; a negative code is a signal's number."""
    return f"by signal {-exit_code}" if exit_code < 0 else f"with exit code {exit_code}"
