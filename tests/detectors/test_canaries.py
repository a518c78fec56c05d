"""Canaries: a detector that says nothing of a known violation is not believed, and nothing of them is ever shown."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from detectors import canaries
from detectors.canaries import Watch, commitment, laid, token_of
from detectors.detector import ClosureTool, RuleGroup, Tool, discover
from detectors.model import FileReport, Finding, Language, Region
from detectors.parsing import parse
from detectors.rule_settings import RuleSettings
from detectors.sandbox import analyse_in_context, analyse_with_tool
from detectors.scan import ScanOptions, scan

TOKENS = [hashlib.sha256(str(number).encode()).hexdigest() for number in range(200)]
GROUPS = [detector for detector in discover() if isinstance(detector, RuleGroup)]
TOOLS = [detector for detector in discover() if isinstance(detector, Tool)]
PLAIN: dict[Language, tuple[str, bytes]] = {
    "c": ("plain.c", b"int plain;\n"),
    "cpp": ("plain.cpp", b"int plain;\n"),
    "python": ("plain.py", b"plain = 1\n"),
    "text": ("plain.txt", b"plain\n"),
}
DUMB = '''
import os, sys
from pathlib import Path
from detectors.canaries import laid
from detectors.detector import FileRule, Tool
from detectors.model import FileReport, Region

class Dumb(Tool):
    name = "dumb-tool"
    version = "1"
    languages = frozenset({"text"})

    def command(self, files):
        return [sys.executable, "-c", "pass"]

    def parse(self, completed, sources):
        return {name: FileReport() for name in sources}

    def canary(self, language, token):
        return laid(language, token, "dumb/bad", "bad")

class Uncertain(Dumb):
    name = "no-canary"

    def canary(self, language, token):
        return None

class Rule(FileRule):
    """A rule that says nothing in the process that claimed the file first."""
    id = "HD-bad"
    detector = "half-dumb"
    languages = frozenset({"text"})
    examples = ("good", "bad  # expect: HD-bad")

    def check(self, parsed):
        place = Path(os.environ["CLAIMED"])
        try:
            with place.open("x") as opened:
                opened.write(str(os.getpid()))
        except FileExistsError:
            pass
        if place.read_text() in ("all", str(os.getpid())):
            return
        for number, line in enumerate(parsed.text.split("\\n"), 1):
            if "bad" in line:
                yield self.finding(Region(number), "bad word")
'''
RUN = """
import json, sys
from pathlib import Path
from detectors.scan import ScanOptions, scan
if __name__ == "__main__":
    tree, cluster, names, on = sys.argv[1:]
    run = scan(ScanOptions((Path(tree),), tuple(names.split(",")), cluster, 2, canaries=on == "on"))
    told = [(e.path, e.detector, e.reason) for e in run.not_analysed]
    counts = {c.detector: (c.placed, c.missed, c.without) for c in run.canaries.counts} if run.canaries else None
    print(json.dumps([told, counts, [f.path for f in run.findings], run.planned, run.whole]))
"""


def _run(folder: Path, cluster: str, names: str, *, on: bool = True, claimed: str = "") -> Any:
    """Scan two files with detectors that are dumb, in a process of its own."""
    tree, place, claim = folder / "tree", folder / "installed", folder / "claimed"
    for made in (tree, place / "dumb-1.0.dist-info"):
        made.mkdir(parents=True)
    for name in ("a.txt", "b.txt"):
        (tree / name).write_text("so bad\n")
    (place / "dumb_detectors.py").write_text(DUMB)
    (place / "dumb-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: dumb\nVersion: 1.0\n")
    (place / "dumb-1.0.dist-info" / "entry_points.txt").write_text("[detector_pool.detectors]\nd = dumb_detectors\n")
    (folder / "run.py").write_text(RUN)
    if claimed:
        claim.write_text(claimed)
    environment = {**os.environ, "PYTHONPATH": str(place), "CLAIMED": str(claim)}
    arguments = [sys.executable, str(folder / "run.py"), str(tree), cluster, names, "on" if on else "off"]
    done = subprocess.run(arguments, env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_a_tool_that_exits_well_and_says_nothing_is_caught(tmp_path: Path) -> None:
    """Without canaries two files would count as clean; with them they count as not analysed, after two attempts."""
    told, counts, found, planned, whole = _run(tmp_path / "on", "inline", "dumb-tool,no-canary")
    assert told == [["a.txt", "dumb-tool", "canary-missed"], ["b.txt", "dumb-tool", "canary-missed"]]
    assert counts == {"dumb-tool": [4, 4, 0], "no-canary": [0, 0, 2]}, "two batches, the dumb ones twice"
    assert (found, planned, whole) == ([], 4, True)

    silent = _run(tmp_path / "off", "inline", "dumb-tool,no-canary", on=False)
    assert silent == [[], None, [], 4, True]


def test_a_rule_that_says_nothing_is_caught(tmp_path: Path) -> None:
    """A group of rules that went dumb everywhere loses its files, and no others."""
    told, counts, found, _, _ = _run(tmp_path, "inline", "half-dumb", claimed="all")

    assert told == [["a.txt", "half-dumb", "canary-missed"], ["b.txt", "half-dumb", "canary-missed"]]
    assert (counts, found) == ({"half-dumb": [4, 4, 0]}, [])


def test_an_invalid_batch_runs_again_on_another_worker(tmp_path: Path) -> None:
    """What only one worker's machine made dumb is answered by another, and nothing is lost."""
    told, counts, found, _, whole = _run(tmp_path, "local", "half-dumb")

    assert (told, found, whole) == ([], ["a.txt", "b.txt"], True)
    (placed, missed, without) = counts["half-dumb"]
    assert placed > missed >= 1
    assert without == 0


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group.name)
def test_every_group_hears_each_of_its_canaries(group: RuleGroup) -> None:
    """A canary that is missed by a good detector would throw away good answers."""
    for settings in (RuleSettings(), RuleSettings(function_lines=500, assertions_per_function=0.0, assertions=("x",))):
        configured = group.configured(settings)
        for language in sorted(group.languages):
            rules = set()
            for token in TOKENS:
                canary = configured.canary(language, token)
                assert canary is not None
                assert canary.heard(configured.check_file(parse(canary.data, language, canary.name))), canary
                rules.add(canary.rule)
            assert len(rules) > 5, "the token chooses among the rules"


@pytest.mark.parametrize("tool", TOOLS, ids=lambda tool: tool.name)
def test_every_tool_hears_its_canary_beside_other_files(tool: Tool) -> None:
    """A tool's canary is reported, and no answer is about it."""
    if tool.missing():
        pytest.skip(tool.missing())
    from detectors.closures import Context

    languages = sorted(tool.languages)
    sources = dict(PLAIN[language] for language in languages)
    offered = [canary for language in languages if (canary := tool.canary(language, TOKENS[0]))]
    watch = Watch(tool.name, offered)
    contexts = {path: Context(search=("",)) for path in sources}
    if isinstance(tool, ClosureTool):
        answers = analyse_in_context(tool, sources, {}, contexts, watch=watch)
    else:
        answers = analyse_with_tool(tool, sources, watch=watch)

    assert (watch.placed, watch.missed) == (len(languages), 0)
    assert answers.keys() == sources.keys()
    assert all(isinstance(answer, FileReport) for answer in answers.values())


def test_a_tool_of_one_file_a_run_that_went_dumb_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its canary stands alone, and what it said of the batch's files does not count."""
    tool = next(tool for tool in TOOLS if tool.name == "compiler-warnings")
    if tool.missing():
        pytest.skip(tool.missing())
    assert isinstance(tool, ClosureTool)
    monkeypatch.setattr(type(tool), "command_in", lambda *_: ["/bin/true"])
    canary = tool.canary("c", TOKENS[1])
    assert canary is not None
    watch = Watch(tool.name, (canary,))
    answers = analyse_in_context(tool, {"a.c": b"int a;\n", "b.c": b"int b;\n"}, {}, {}, watch=watch)

    assert {path: getattr(answer, "reason", "") for path, answer in answers.items()} == {
        "a.c": "canary-missed", "b.c": "canary-missed",
    }  # fmt: skip
    assert (watch.placed, watch.missed) == (1, 1)


def test_findings_and_gaps_are_the_same_with_and_without(tmp_path: Path) -> None:
    """Canaries reach neither findings, nor the cache, nor facts; the seed that is revealed is what was committed to."""
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "a.c").write_text("int f(int n)\n{\n    if (n) goto out;\nout:\n    return f(n);\n}\n")
    (tree / "b.py").write_text("import os\n\n\ndef g(x):\n    return eval(x)\n")
    (tree / "broken.py").write_text("def (\n")
    names = ("power-of-ten-c", "power-of-ten-python", "ruff", "lizard", "flawfinder")
    off = scan(ScanOptions((tree,), names, "inline", 1))
    on = scan(ScanOptions((tree,), names, "inline", 1, cache=tmp_path / "cache", canaries=True))
    again = scan(ScanOptions((tree,), names, "inline", 1, cache=tmp_path / "cache", canaries=True))

    assert on.findings_digest == off.findings_digest == again.findings_digest
    assert on.units == tuple(msgspec.structs.replace(unit, run_id=on.run_id) for unit in off.units)
    assert on.not_analysed == off.not_analysed
    assert off.canaries is None
    assert on.canaries is not None
    assert again.canaries is not None
    assert on.canaries.commitment == commitment(bytes.fromhex(on.canaries.seed)) != again.canaries.commitment
    assert {count.detector for count in on.canaries.counts if count.placed} == set(names)
    assert not any(count.missed for count in on.canaries.counts)
    assert again.canaries.counts == (), "what the cache answers runs no batch"


def test_a_canary_counts_on_its_line_and_by_its_rule_only() -> None:
    """A detector that reports always the same place, or any rule at all, has not looked."""
    canary = laid("c", "0f" + "0" * 62, "x/a", "first\nsecond", 2)
    right, other = Finding("x/a", "note", "", Region(17)), Finding("x/b", "note", "", Region(17))

    assert canary.line == 17
    assert canary.data.split(b"\n")[16] == b"second"
    assert canary.heard(FileReport((other, right)))
    assert not canary.heard(FileReport((other, Finding("x/a", "note", "", Region(16)))))
    assert not canary.heard(None)
    with pytest.raises(ValueError, match="no line 3"):
        laid("c", "00", "x/a", "first\nsecond", 3)


def test_tokens_differ_by_seed_and_batch() -> None:
    """Who knows one batch's canary knows no other's, nor another run's."""
    seeds = [bytes([number]) * canaries.SEED_BYTES for number in range(3)]
    assert len({token_of(seed, batch) for seed in seeds for batch in ("ruff-1", "ruff-2")}) == 6
