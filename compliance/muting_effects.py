"""
What a tree would mute if its tools obeyed it: for each kind of thing, which findings of a run would be gone.

The run itself is the side without: its tools saw a shadow copy in which nothing of the tree is heard. The other side is
one more run of the same tool, in the same sandbox, on the same bytes, that is let obey one kind of thing: comments in
the sources, or the files that configure it. What can run code of the tree (plugins, hooks, flags of a compiler) is
never obeyed, and is told as such. Of ignore files the other side is the run, since a scan obeys them openly; what they
hide is analysed beside it.
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Literal

from compliance.formats.immunity import threats_of
from detectors.cache import ResultCache
from detectors.detector import ClosureTool, Muting, RuleGroup, Tool, discover
from detectors.errors import SourceChanged, ToolError
from detectors.model import (
    Analysed,
    Excluded,
    FileReport,
    LocatedFinding,
    MutedFinding,
    MutingEffect,
    NotAnalysed,
    RunRecord,
    SourceFile,
)
from detectors.sandbox import analyse_in_context, analyse_obeying, lies_plainly
from detectors.scan import Scan, ScanOptions
from detectors.snapshot import Snapshot, read_verified
from detectors.tree_closures import TreeClosures

__all__ = ["with_effects"]

IGNORE_LINE = re.compile(r"(?:^|/)\.gitignore:\d+")
MOST_HIDDEN = 5_000
"""Hidden files that are analysed to see what is in them; more are somebody's environment, and cost a night."""
Answers = Mapping[str, FileReport | NotAnalysed]


def with_effects(run: RunRecord, options: ScanOptions) -> RunRecord:
    """
    Return the record with what its tree would have muted.

    Args:
        run: As it was settled; the sources are still there.
        options: What it was asked to do.

    Raises:
        DetectorPoolError: As `detectors.scan.scan`, from the scan of what ignore files hide.
    """
    import msgspec

    assert run.deadline is None, "a run that must end in time does no more than it must"
    tree = _Tree(run, options)
    effects = [*_of_ignore_files(run, options)]
    for detector in discover():
        if detector.name not in {record.name for record in run.detectors}:
            continue
        if isinstance(detector, Tool):
            effects += [*_of_configuration(tree, detector), *_of_markers(tree, detector)]
        elif isinstance(detector, RuleGroup):
            effects += _of_own_markers(tree, detector.name)
    return msgspec.structs.replace(run, effects=tuple(sorted(effects)))


class _Tree:
    """A run's sources and findings, to be asked by detector."""

    def __init__(self, run: RunRecord, options: ScanOptions) -> None:
        self.run, self._options = run, options
        self._files = {file.path: file for file in run.files}
        self._found: dict[str, list[LocatedFinding]] = defaultdict(list)
        for item in run.findings:
            self._found[item.detector].append(item)

    def found(self, detector: str) -> list[LocatedFinding]:
        """Return the findings of one detector."""
        return self._found.get(detector, [])

    def read(self, paths: Iterable[str]) -> dict[str, bytes]:
        """Return the bytes of files as the run saw them; raises SourceChanged."""
        return {path: self._read(self._files[path]) for path in sorted(set(paths))}

    def _read(self, file: SourceFile) -> bytes:
        return read_verified(self.run.roots[file.root].path, file)

    def answers(self, tool: Tool, sources: Mapping[str, bytes]) -> Answers:
        """Run a tool that obeys the tree on some of its files; raises ToolError, SourceChanged."""
        if not isinstance(tool, ClosureTool):
            return analyse_obeying(tool, sources)
        snapshot = Snapshot(self.run.roots, self.run.files, self.run.excluded, self.run.not_analysed)
        with ResultCache(None) as store:
            closures = TreeClosures(snapshot, store, self._options.settings.include_folders)
            known = closures.of(tool.closure, tool.languages)
        support = {path for file in sources for path in known[file].files} - sources.keys()
        contexts = {path: known[path].context for path in sources}
        return analyse_in_context(tool, sources, self.read(support), contexts)


def _of_markers(tree: _Tree, tool: Tool) -> Iterator[MutingEffect]:
    """Yield what comments in the sources would do to a tool."""
    if tool.marks is None:
        muted = sorted({item.path for item in tree.found(tool.name) if item.suppressed})
        if muted:
            yield MutingEffect("markers", tool.name, tuple(muted), "not-shown", "no run of it here obeys comments")
        return
    try:
        sources = tree.read({item.path for item in tree.found(tool.name)})
    except SourceChanged as problem:
        yield MutingEffect("markers", tool.name, (problem.path,), "not-shown", str(problem))
        return
    marked = {path: data for path, data in sources.items() if tool.marks.search(data)}
    if marked:
        effect = _shown(tree, tool, "markers", tuple(marked), marked)
        # A word that looks like a marker, and mutes nothing, is none.
        if effect.muted or effect.state != "shown":
            yield effect


def _of_configuration(tree: _Tree, tool: Tool) -> Iterator[MutingEffect]:
    """Yield what files that configure a tool would do to it: those that it can be let obey together, others by kind."""
    obeyed: list[str] = []
    others: dict[tuple[Literal["never-run", "not-shown"], str], list[str]] = defaultdict(list)
    for file in tree.run.files:
        for threat in threats_of(file.path):
            if tool.name not in threat.tools:
                continue
            if file.path.rpartition("/")[2] in tool.heeds and lies_plainly(file.path):
                obeyed.append(file.path)
            elif threat.effect == "executes":
                others["never-run", f"it can run code of the tree: it would {threat.would}"].append(file.path)
            else:
                others["not-shown", "no run of it here obeys such a file"].append(file.path)
    for (state, told), paths in others.items():
        assert paths, "an effect is of some file"
        yield MutingEffect("configuration", tool.name, tuple(paths), state, told)
    if not obeyed:
        return
    try:
        sources = tree.read({item.path for item in tree.found(tool.name)})
        files = tree.read(obeyed)
    except SourceChanged as problem:
        yield MutingEffect("configuration", tool.name, tuple(obeyed), "not-shown", str(problem))
        return
    yield _shown(tree, tool, "configuration", tuple(obeyed), sources, files)


def _shown(  # noqa: PLR0917  # private, and each is what one side of a comparison needs
    tree: _Tree,
    tool: Tool,
    kind: Muting,
    things: tuple[str, ...],
    sources: Mapping[str, bytes],
    files: Mapping[str, bytes] | None = None,
) -> MutingEffect:
    """Run a tool that obeys, and return which of the run's findings are gone."""
    if not sources:
        return MutingEffect(kind, tool.name, things, "shown")
    try:
        answers = tree.answers(tool.obeying(kind, files), sources)
        # What a tool does not report as it comes, the tree's configuration does not mute.
        others = tree.answers(tool.obeying(kind), sources) if kind == "configuration" else None
    except (ToolError, SourceChanged) as problem:
        return MutingEffect(kind, tool.name, things, "not-shown", str(problem)[:400])
    failed = [path for path, said in answers.items() if isinstance(said, NotAnalysed) and said.reason != "not-reported"]
    if failed:
        told = f"it failed on {len(failed)} files, such as {failed[0]}"
        return MutingEffect(kind, tool.name, things, "not-shown", told)
    # Who does not say that it read a file was told to pass over it: that mutes all.
    found = Counter(map(_muted, (item for item in tree.found(tool.name) if item.path in sources)))
    gone = (found if others is None else found & _counted(others)) - _counted(answers)
    return MutingEffect(kind, tool.name, things, "shown", "", tuple(sorted(gone.elements())))


def _counted(answers: Answers) -> Counter[MutedFinding]:
    return Counter(
        MutedFinding(path, finding.region.start_line, finding.rule)
        for path, said in answers.items()
        if isinstance(said, FileReport)
        for finding in said.findings
    )


def _of_own_markers(tree: _Tree, group: str) -> Iterator[MutingEffect]:
    """Yield what our own rules hear: they obey no comment but mark what it speaks of, so one run has both sides."""
    muted = [_muted(item) for item in tree.found(group) if item.suppressed]
    if muted:
        things = tuple(sorted({one.path for one in muted}))
        yield MutingEffect("markers", group, things, "shown", "", tuple(sorted(muted)))


def _of_ignore_files(run: RunRecord, options: ScanOptions) -> Iterator[MutingEffect]:
    """Yield for each line of an ignore file what is found in the files that it hides."""
    lines = [entry for entry in run.excluded if IGNORE_LINE.search(entry.by)]
    hidden = sum(entry.files for entry in lines)
    if hidden > MOST_HIDDEN:
        told = f"{hidden} files are hidden, at most {MOST_HIDDEN} are analysed to show what is in them"
        things = tuple(dict.fromkeys(entry.by for entry in lines))
        yield MutingEffect("ignore-files", "", things, "not-shown", told)
    elif lines:
        known = {file.path for file in run.files}
        muted: dict[str, list[MutedFinding]] = {entry.by: [] for entry in lines}
        for path, one in _found_hidden(options, known):
            by = _hidden_by(path, lines)
            if by:
                muted[by].append(one)
        for by, found in muted.items():
            yield MutingEffect("ignore-files", "", (by,), "shown", "", tuple(sorted(found)))


def _found_hidden(options: ScanOptions, known: set[str]) -> Iterator[tuple[str, MutedFinding]]:
    """Yield the findings in files that only ignore files keep out; answers come from the cache and go there."""
    asked = dataclasses.replace(options, ignore=False, verify_cache=0.0, baseline=None, canaries=False)
    with Scan(asked) as scan:
        hidden = {file.path for file in scan.snapshot().files} - known
        stages = scan.plan()
        scan.only({(path, name) for path in hidden for stage in stages for name in stage.detectors})
        scan.execute_all()
        for (path, _), answer in scan.answers().items():
            if path in hidden and isinstance(answer, Analysed):
                for finding in answer.report.findings:
                    yield path, MutedFinding(path, finding.region.start_line, finding.rule)


def _hidden_by(path: str, lines: Iterable[Excluded]) -> str:
    """Return the line that hides a file; empty where none does."""
    assert path, "a file has a path"
    return next((e.by for e in lines if path == e.path or (e.path.endswith("/") and path.startswith(e.path))), "")


def _muted(item: LocatedFinding) -> MutedFinding:
    return MutedFinding(item.path, item.finding.region.start_line, item.finding.rule)
