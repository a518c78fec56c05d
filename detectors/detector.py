"""
What a detector is, and how all of them are found.

A newcomer writes one file with one class:

- `FileRule`: looks at one parsed file (`check`).
- `TreeRule`: looks at the facts of all files (`check_tree`), gathered file by file by a `Facts` class.
- `Tool`: a foreign program, run on a batch of files (`command`, `parse`).

Rules that name the same `detector` form one `RuleGroup`, so that they share one read and one parse of each file.
Classes are found by walking the modules of the entry-point group `detector_pool.detectors`; a module that cannot be
imported stops the run, since fewer rules would look like a cleaner tree.
"""

from __future__ import annotations

import abc
import copy
import functools
import hashlib
import importlib
import importlib.metadata
import inspect
import pkgutil
import re
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, TypeVar

from detectors.canaries import Canary, laid
from detectors.closures import ClosureKind, Context
from detectors.errors import DetectorBroken, UnknownDetector, UsageError
from detectors.model import (
    Completed,
    Digest,
    FileReport,
    Finding,
    Language,
    Level,
    NotAnalysed,
    Region,
    Related,
    RuleRecord,
)
from detectors.parsing import collector_paused
from detectors.rule_settings import RuleSettings
from detectors.suppressions import RULES as SUPPRESSION_RULES
from detectors.suppressions import markers_of

if TYPE_CHECKING:
    from types import ModuleType

    from detectors.parsing import ParsedFile

__all__ = [
    "MISSING",
    "ClosureTool",
    "Detector",
    "Facts",
    "FileRule",
    "Muting",
    "Registry",
    "Rule",
    "RuleGroup",
    "SharedFacts",
    "Tool",
    "TreeRule",
    "discover",
    "fact_readers",
    "once",
]

Made = TypeVar("Made")
EXPECTED = re.compile(r"expect: (\S+)")
ENTRY_POINT_GROUP = "detector_pool.detectors"
MISSING = "missing"
"""Stands for the version of a tool that is not here."""


class Rule(abc.ABC):
    """
    What `FileRule` and `TreeRule` share; the docstring is the rule's documentation.

    The docstring's first line says what is flagged; paragraphs begin with `Why:`, `Instead:`, `Not found:`,
    `Source:`. `examples` are source texts; a line that must be reported ends in a comment `expect: <rule id>`.
    """

    id: ClassVar[str]
    level: ClassVar[Level] = "warning"
    detector: ClassVar[str]
    """Name of the group that the rule belongs to, as `--detectors` takes it."""
    languages: ClassVar[frozenset[Language]]
    examples: ClassVar[tuple[str, ...]] = ()
    tunable: ClassVar[bool] = False
    """Whether limits or words of the settings decide its findings, so that its examples are no canaries."""

    def __init__(self, settings: RuleSettings | None = None) -> None:
        self.settings = settings or RuleSettings()

    def finding(
        self, region: Region, message: str, *, level: Level | None = None, related: tuple[Related, ...] = ()
    ) -> Finding:
        """Make a finding of this rule at `region`."""
        return Finding(self.id, level or self.level, message, region, related)

    @classmethod
    def record(cls) -> RuleRecord:
        """Return the rule as reports describe it."""
        text = inspect.cleandoc(cls.__doc__ or "")
        summary = text.partition("\n")[0].strip()
        return RuleRecord(cls.id, cls.level, summary, text, tuple(sorted(cls.languages)))


class FileRule(Rule):
    """A rule that needs one file only. Instances keep no state between files."""

    @abc.abstractmethod
    def check(self, parsed: ParsedFile) -> Iterable[Finding]:
        """Yield the findings of one parsed file."""


class Facts(abc.ABC):
    """What tree rules need to know of one file, cached with its findings."""

    id: ClassVar[str]
    detector: ClassVar[str]
    languages: ClassVar[frozenset[Language]]
    shape: ClassVar[Any] = Any
    """Type as which msgpack gives what was collected to tree rules; read so once, it needs no conversion by them."""

    def __init__(self, settings: RuleSettings | None = None) -> None:
        self.settings = settings or RuleSettings()

    @abc.abstractmethod
    def collect(self, parsed: ParsedFile) -> object:
        """Return plain data that msgpack can hold: numbers, strings, lists, dicts."""


class SharedFacts(dict[str, Any]):
    """The facts of one id by report path, and what rules made of them: a call graph is made once for all rules."""

    def __init__(self, facts: Mapping[str, Any]) -> None:
        super().__init__(facts)
        self._made: dict[Callable[[Mapping[str, Any]], Any], Any] = {}

    def once(self, make: Callable[[Mapping[str, Any]], Made]) -> Made:
        """Return what `make` makes of the facts; a second call returns the same."""
        if make not in self._made:
            self._made[make] = make(self)
        made: Made = self._made[make]
        return made


def once(make: Callable[[Mapping[str, Any]], Made], facts: Mapping[str, Any]) -> Made:
    """Make something of facts, or take what another rule made of the same."""
    return facts.once(make) if isinstance(facts, SharedFacts) else make(facts)


class TreeRule(Rule):
    """A rule over the whole tree."""

    needs: ClassVar[tuple[str, ...]]
    """Ids of `Facts`."""

    @abc.abstractmethod
    def check_tree(self, facts: Mapping[str, Mapping[str, Any]]) -> Iterable[tuple[str, Finding]]:
        """
        Yield `(report path, finding)` pairs.

        Args:
            facts: By fact id, then by report path in sorted order: what `Facts.collect` returned, as `Facts.shape`.
        """


class Detector(abc.ABC):
    """A unit of selection, planning and caching: a `RuleGroup` or a `Tool`."""

    name: str
    version: str
    languages: frozenset[Language]
    needs: tuple[str, ...] = ()
    """Names of detectors whose per-file stage must be finished before this one's reduce."""
    roles: frozenset[str] = frozenset()
    """Roles of which one is needed to run it, beside what the access policy says; empty: whoever that lets run it."""
    path_sensitive: bool = False
    """Whether the same bytes under another path may give another result; then the path is in the cache key."""
    complexity_score: float = 1.0
    """Seconds a megabyte, as a start until there is a history."""
    on_request: ClassVar[bool] = False
    """Whether it runs only where it is named; what runs otherwise must not hang on what a machine happens to have."""

    @abc.abstractmethod
    def code_files(self) -> Iterable[Path]:
        """Return every file whose bytes decide what the detector reports: own code, wrapped tool's files."""

    @abc.abstractmethod
    def rules(self) -> tuple[RuleRecord, ...]:
        """Return what is known of the detector's rules beforehand (tools may report others too)."""

    def config_digest(self) -> Digest:
        """Return the digest of the configuration that decides what is reported."""
        return _digest(b"")

    def missing(self) -> str | None:
        """Return how to install what is missing, or `None` if the detector can run here."""
        return None

    def canary(self, language: Language, token: str) -> Canary | None:
        """
        Return a source whose violation the detector reports, whatever its settings; `None` if it offers none.

        Args:
            language: One of `languages`; the source needs no other file.
            token: Decides the line, and what else may differ from batch to batch; see `detectors.canaries`.
        """
        del language, token
        return None


class RuleGroup(Detector):
    """All rules that carry one detector name: one read and one parse a file for all of them."""

    def __init__(
        self,
        name: str,
        file_rules: Sequence[FileRule],
        tree_rules: Sequence[TreeRule],
        facts: Sequence[Facts],
        settings: RuleSettings | None = None,
    ) -> None:
        self.name = name
        self.settings = settings or RuleSettings()
        self.version = importlib.metadata.version("enterprise-detector-pool")
        self.file_rules, self.tree_rules, self.facts = tuple(file_rules), tuple(tree_rules), tuple(facts)
        everything: list[FileRule | TreeRule | Facts] = [*file_rules, *tree_rules, *facts]
        self.languages = frozenset[Language]().union(*(item.languages for item in everything))
        self._classes = tuple(type(item) for item in everything)
        # Suppressions name rules of the Power of Ten only: groups of others neither hear nor judge them.
        self._heeds = any(rule.id.startswith("P10-") for rule in (*file_rules, *tree_rules))
        self.complexity_score = 0.5

    def configured(self, settings: RuleSettings) -> RuleGroup:
        """Return the group with rules made anew: those that the settings select, with their limits and words."""
        return RuleGroup(
            self.name,
            [type(rule)(settings) for rule in self.file_rules if settings.runs(rule.id)],
            [type(rule)(settings) for rule in self.tree_rules if settings.runs(rule.id)],
            [type(fact)(settings) for fact in self.facts],
            settings,
        )

    def config_digest(self) -> Digest:
        """Return the digest of the settings."""
        import msgspec

        return _digest(b"" if self.settings == RuleSettings() else msgspec.json.encode(self.settings))

    def check_file(self, parsed: ParsedFile) -> FileReport:
        """Run every file rule and fact collector that knows the file's language."""
        import msgspec

        found = [
            finding for rule in self.file_rules if parsed.language in rule.languages for finding in rule.check(parsed)
        ]
        facts = {
            fact.id: msgspec.msgpack.encode(fact.collect(parsed))
            for fact in self.facts
            if parsed.language in fact.languages
        }
        return FileReport(tuple(found), facts, parsed.understood, markers_of(parsed) if self._heeds else ())

    def check_tree(self, facts: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, Finding]]:
        """Run every tree rule; see `TreeRule.check_tree`."""
        with collector_paused():
            shared = {need: SharedFacts(facts.get(need, {})) for rule in self.tree_rules for need in rule.needs}
            found = [
                item
                for rule in self.tree_rules
                for item in rule.check_tree({need: shared[need] for need in rule.needs})
            ]
            shared.clear()  # so that the collector finds the findings only
        yield from found

    def canary(self, language: Language, token: str) -> Canary | None:
        """Return a flagged example of one of the rules that need one file; the token chooses."""
        known = [
            (rule.id, example, line)
            for rule in self.file_rules
            if language in rule.languages and not rule.tunable
            for example in rule.examples
            if (line := _flagged_line(example, rule.id))
        ]
        if not known:
            return None
        rule_id, example, line = known[int(token[2:10], 16) % len(known)]
        return laid(language, token, rule_id, example, line)

    def code_files(self) -> Iterable[Path]:
        """Return the rules' modules, all modules of the packages they stand in, and the engine's parsing."""
        modules = {cls.__module__ for cls in self._classes}
        files = {Path(inspect.getfile(sys.modules[module])) for module in modules}
        # A rule may lean on a neighbour that holds no rule (shared vocabulary), so its whole package counts.
        files |= {
            file for known in tuple(files) for file in known.parent.glob("*.py") if known.parent.name != "site-packages"
        }
        here = Path(__file__).parent
        files |= set(here.glob("*parsing.py")) | {
            here / "detector.py",
            here / "model.py",
            here / "findings.py",
            here / "rule_settings.py",
            here / "suppressions.py",
        }
        for distribution in ("tree-sitter", "tree-sitter-c", "tree-sitter-cpp"):
            files |= set(distribution_files(distribution, suffixes=(".so",)))
        return sorted(files)

    def rules(self) -> tuple[RuleRecord, ...]:
        """Return the records of all rules, by id."""
        own = (rule.record() for rule in (*self.file_rules, *self.tree_rules))
        return tuple(sorted((*own, *(SUPPRESSION_RULES if self._heeds else ())), key=lambda r: r.id))


Muting = Literal["configuration", "markers"]
"""By what a tree may mute a tool: files that configure it, or comments in its sources."""


class Tool(Detector):
    """
    A foreign program that analyses a batch of files in a shadow copy of the tree.

    The program's working directory is a scratch folder that holds nothing but the files of the batch, under names
    that are safe on any command line. Its exit code is never the verdict: `parse` must account for every file.
    """

    name: str
    distribution: ClassVar[str] = ""
    """PyPI name; its version and files identify the tool. Empty for a program of the system, which says them itself."""
    path_sensitive = True
    limit_s: ClassVar[float] = 300.0
    memory_bytes: ClassVar[int] = 4 << 30
    files_per_batch: ClassVar[int] = 200
    start_s: ClassVar[float] = 0.5
    """Start-up of the program, for planning until there is a history."""
    marks: ClassVar[re.Pattern[bytes] | None] = None
    """What a file holds in which comments may mute the tool; None where it cannot be let hear them."""
    heeds: ClassVar[tuple[str, ...]] = ()
    """Base names of files of the tree that would configure the tool, and cannot make it run anything."""
    hears: Muting | None = None
    """What of the tree it obeys; nothing in a scan."""
    obeyed: Mapping[str, bytes] = MappingProxyType({})
    """Files of the tree that lie beside its sources under their own names; none in a scan."""
    speaks_for: ClassVar[str] = ""
    """The rule of the Power of Ten that its findings break, such as `P10-R10`; who suppresses it suppresses them."""

    @functools.cached_property
    def version(self) -> str:  # type: ignore[override]  # a value on other detectors, looked up once here
        """Return the installed version, or `missing`."""
        try:
            return importlib.metadata.version(self.distribution)
        except importlib.metadata.PackageNotFoundError:
            return MISSING

    @abc.abstractmethod
    def command(self, files: Sequence[str]) -> list[str]:
        """Return the argument list for `files` (relative to the working directory, safe names)."""

    @abc.abstractmethod
    def parse(self, completed: Completed, sources: Mapping[str, bytes]) -> Mapping[str, FileReport | NotAnalysed]:
        """
        Read the program's output.

        Args:
            completed: Exit code, standard output and error.
            sources: What was asked: safe name to the file's bytes (to find suppression markers and columns).

        Returns:
            One entry for each key of `sources`; one that is missing becomes *not analysed* (`not-reported`).
            `NotAnalysed.path` and `.detector` may be left empty here; the caller fills them in.

        Raises:
            ToolCrashed, ToolOutputInvalid: The batch is halved and run again.
        """

    def prepare(self, data: bytes) -> bytes:
        """Return the bytes that the tool is shown; for a tool whose own mute markers have no switch."""
        return data

    def obeying(self, kind: Muting, files: Mapping[str, bytes] | None = None) -> Self:
        """
        Return the same tool as one that obeys the tree: to show what that would mute, and never in a scan.

        Args:
            kind: What it obeys.
            files: Path to bytes of the files that configure it; only such as it `heeds`. Of none it is as it comes:
                with its own defaults, and nothing that we configure.

        Raises:
            UsageError: It cannot be let, since that may run code of the tree, or nobody knows how.
        """
        odd = [path for path in files or {} if path.rpartition("/")[2] not in self.heeds]
        if odd or (kind == "configuration" and not self.heeds) or (kind == "markers" and self.marks is None):
            raise UsageError(f"{self.name} is not let obey the {kind} of a tree: {', '.join(odd) or 'nothing known'}")
        other = copy.copy(self)
        other.hears, other.obeyed = kind, MappingProxyType(dict(files or {}))
        assert self.hears is None, "the tool itself obeys nothing"
        return other

    def code_files(self) -> Iterable[Path]:
        """Return the wrapper's module, the sandbox, and every file of the tool's distribution."""
        here = Path(__file__).parent
        files = {Path(inspect.getfile(type(self))), here / "sandbox.py", here / "detector.py", here / "model.py"}
        # What the tool imports decides what it reports, too.
        for distribution in (self.distribution, *_required(self.distribution)) if self.distribution else ():
            files |= set(distribution_files(distribution))
        return sorted(files)

    def rules(self) -> tuple[RuleRecord, ...]:
        """Return nothing: a tool's rules are known once it reports them."""
        return ()

    def missing(self) -> str | None:
        """Return how to install the tool, or `None`."""
        return None if self.version != MISSING else f"install it with: pip install {self.distribution}"


class ClosureTool(Tool):
    """
    A tool that reads headers or modules beside the files it is asked about.

    Its scratch folder holds the closure of each file, too, under the names that the tree has; see `detectors.closures`.
    The closure is part of the cache's key. `prepare` is applied to all of it.
    """

    closure: ClassVar[ClosureKind]
    files_per_run: ClassVar[int] = 1
    """How many files of one context the program is given at once; the rest of a batch follows in further runs."""

    @abc.abstractmethod
    def command_in(self, context: Context, files: Sequence[str]) -> list[str]:
        """Return the argument list for `files`; folders and files of the context are safe names, too."""

    def command(self, files: Sequence[str]) -> list[str]:
        """Return the argument list for files that nothing is known about."""
        return self.command_in(Context(), files)

    def code_files(self) -> Iterable[Path]:
        """Return what decides a tool's result, and what makes closures."""
        here = Path(__file__).parent
        return sorted({*super().code_files(), here / "closures.py", here / "compile_database.py"})


class Registry:
    """The detectors of a run, by name, in sorted order."""

    def __init__(self, detectors: Iterable[Detector]) -> None:
        self._detectors = {detector.name: detector for detector in sorted(detectors, key=lambda d: d.name)}

    def __iter__(self) -> Iterator[Detector]:
        return iter(self._detectors.values())

    def __len__(self) -> int:
        return len(self._detectors)

    def __getitem__(self, name: str) -> Detector:
        """Return the detector called `name`; raises UnknownDetector with the nearest name."""
        try:
            return self._detectors[name]
        except KeyError:
            import difflib

            near = difflib.get_close_matches(name, self._detectors, n=1, cutoff=0.4)
            raise UnknownDetector(name, near[0] if near else None) from None

    def configured(self, settings: RuleSettings) -> Registry:
        """Return the same detectors, the groups of rules with `settings`."""
        if settings == RuleSettings():
            return self
        return Registry(item.configured(settings) if isinstance(item, RuleGroup) else item for item in self)

    def select(self, names: Iterable[str] | None) -> Registry:
        """Return the named detectors (for `None` all that run without being named); raises UnknownDetector."""
        if names is None:
            return Registry(detector for detector in self if not detector.on_request)
        return Registry({name: self[name] for name in names}.values())


@functools.cache
def discover() -> Registry:
    """
    Find every detector that is installed.

    Raises:
        DetectorBroken: A module cannot be imported, or two classes carry one id.
    """
    classes = [cls for module in _modules() for cls in _classes_of(module)]
    tools = [cls() for cls in classes if issubclass(cls, Tool)]
    groups: dict[str, tuple[list[FileRule], list[TreeRule], list[Facts]]] = {}
    seen: dict[str, type] = {}
    for cls in classes:
        if issubclass(cls, Tool):
            continue
        if cls.id in seen:
            raise DetectorBroken(cls.__module__, f"id {cls.id!r} is already taken by {seen[cls.id].__module__}")
        seen[cls.id] = cls
        file_rules, tree_rules, facts = groups.setdefault(cls.detector, ([], [], []))
        if issubclass(cls, FileRule):
            file_rules.append(cls())
        elif issubclass(cls, TreeRule):
            tree_rules.append(cls())
        elif issubclass(cls, Facts):
            facts.append(cls())
    detectors: list[Detector] = [*tools, *(RuleGroup(name, *parts) for name, parts in groups.items())]
    names = [detector.name for detector in detectors]
    if len(names) != len(set(names)):
        twice = next(name for name in names if names.count(name) > 1)
        raise DetectorBroken(twice, "two detectors carry this name")
    return Registry(detectors)


def fact_readers(groups: Iterable[RuleGroup], wanted: Collection[str]) -> dict[str, Callable[[bytes], Any]]:
    """
    Return how stored facts are read, by fact id.

    Args:
        groups: Whose facts they may be.
        wanted: Fact ids; others are not worth their time.
    """
    import msgspec

    found: dict[str, Callable[[bytes], Any]] = {
        fact.id: msgspec.msgpack.Decoder(fact.shape).decode
        for group in groups
        for fact in group.facts
        if fact.id in wanted
    }
    assert found.keys() <= set(wanted), "nothing is read that nobody asked for"
    return found


def _flagged_line(example: str, rule: str) -> int:
    """Return the first line of an example of one file that a rule must report; 0 for none."""
    if " file: " in example:
        return 0
    lines = enumerate(example.split("\n"), 1)
    return next((number for number, line in lines if rule in EXPECTED.findall(line)), 0)


def distribution_files(distribution: str, suffixes: tuple[str, ...] | None = None) -> list[Path]:
    """Return the installed code files of a distribution (no byte code); empty when it is not installed."""
    try:
        files = importlib.metadata.distribution(distribution).files or []
    except importlib.metadata.PackageNotFoundError:
        return []
    kept = [
        file
        for file in files
        if "__pycache__" not in file.parts
        and not any(part.endswith(".dist-info") for part in file.parts)
        and (suffixes is None or file.name.endswith(suffixes))
    ]
    return [Path(str(file.locate())) for file in kept]


def _required(distribution: str) -> list[str]:
    """Return the names of the distributions that one needs, without its extras."""
    try:
        requirements = importlib.metadata.requires(distribution) or []
    except importlib.metadata.PackageNotFoundError:
        return []
    needed = [requirement for requirement in requirements if "extra ==" not in requirement]
    return [match.group() for requirement in needed if (match := re.match(r"[A-Za-z0-9][\w.-]*", requirement))]


def _modules() -> Iterator[ModuleType]:
    for entry in sorted(importlib.metadata.entry_points(group=ENTRY_POINT_GROUP), key=lambda e: (e.name, e.value)):
        module = _import(entry.module)
        yield module
        # Only the part of the walk below the named package; a plain module has no `__path__`.
        for info in pkgutil.iter_modules(getattr(module, "__path__", []), f"{module.__name__}."):
            yield _import(info.name)


def _import(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except Exception as problem:  # whatever a third party's module raises, the name must be told
        raise DetectorBroken(name, f"{type(problem).__name__}: {problem}") from problem


def _classes_of(module: ModuleType) -> Iterator[type[Any]]:
    for cls in vars(module).values():
        if (
            inspect.isclass(cls)
            and issubclass(cls, (Rule, Facts, Tool))
            and not inspect.isabstract(cls)
            and cls.__module__ == module.__name__
        ):
            yield cls


def _digest(data: bytes) -> Digest:
    return Digest("sha256:" + hashlib.sha256(data).hexdigest())
