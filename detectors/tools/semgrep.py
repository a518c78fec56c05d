"""semgrep: rules of this project that take patterns, where the system has it. LGPL-2.1: a process of its own."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from detectors.canaries import Canary, laid
from detectors.detector import MISSING, Tool
from detectors.errors import ToolCrashed, ToolOutputInvalid
from detectors.model import Completed, FileReport, Finding, Language, Level, NotAnalysed, Region
from detectors.tools import system_programs
from detectors.tools.suppressions import lines_of, suppressed

RULES = Path(__file__).with_name("semgrep_rules.yaml")
LEVELS: dict[str, Level] = {"ERROR": "error", "WARNING": "warning", "INFO": "note"}
MARKER = re.compile(r"\bnosem(?:grep)?\b(?::\s?(?P<ids>[\w.,\- ]+))?", re.IGNORECASE)
PARTIAL = "PartialParsing"


class Semgrep(Tool):
    """
    semgrep with the rules of `semgrep_rules.yaml`, without registry, network, metrics or the tree's ignore files.

    It is run on request only: its dependencies contradict ours, so it cannot be part of the same environment, and what
    a run consists of must not hang on what a machine happens to have. What semgrep cannot parse lowers the share of
    the file that was understood. A file in which no word of any rule stands is never parsed, nor needs to be.
    """

    name = "semgrep"
    languages = frozenset({"c", "cpp", "python"})
    on_request = True
    complexity_score = 1.0
    files_per_batch = 500
    start_s = 3.0
    marks = re.compile(rb"nosem", re.IGNORECASE)

    @functools.cached_property
    def version(self) -> str:  # type: ignore[override]  # a value on other detectors, looked up once here
        """Return what semgrep says of its version, or `missing`; without the switch it would ask the network."""
        place = system_programs.program("semgrep")
        return (place and system_programs.said(place, "--version", "--disable-version-check")) or MISSING

    def missing(self) -> str | None:
        """Return how to get semgrep, or `None`."""
        if self.version != MISSING:
            return None
        return "install semgrep apart from this project, for example: pipx install --global semgrep"

    def code_files(self) -> Iterable[Path]:
        """Return the wrapper, its rules, and semgrep's own launcher and engine."""
        place = system_programs.program("semgrep")
        engine: list[Path] = []
        if place is not None:
            launcher = place.resolve()
            engine = [launcher, *launcher.parent.parent.glob("lib/python*/site-packages/semgrep/bin/semgrep-core")]
        return sorted({*super().code_files(), RULES, *engine})

    def canary(self, language: Language, token: str) -> Canary | None:
        """Return a block that is lost, or a digest that is compared in a time that tells."""
        assert language in self.languages, "a canary is in a language that it reads"
        if language == "python":
            violation = f"def f{token[:8]}(h, x): return h.hexdigest() == x"
            return laid(language, token, "semgrep/python-compared-secret", violation)
        violation = f"void f{token[:8]}(char *p) {{ p = realloc(p, 2); }}"
        return laid(language, token, "semgrep/c-realloc-over-pointer", violation)

    def command(self, files: Sequence[str]) -> list[str]:
        """Return the command; files are named one by one, since in folders semgrep obeys ignore files."""
        assert not any(name.startswith("-") for name in files), "a name that would be read as an option"
        binary = system_programs.program("semgrep") or "semgrep"
        quiet = ("--quiet", "--json", "--metrics=off", "--disable-version-check", "--oss-only", "--jobs=1")
        deaf = () if self.hears == "markers" else ("--disable-nosem",)
        blind = (*deaf, "--no-git-ignore", "--max-target-bytes=0", "--timeout=60", "--timeout-threshold=0")
        return [str(binary), "scan", *quiet, *blind, f"--config={RULES}", "--", *files]

    def parse(self, completed: Completed, sources: Mapping[str, bytes]) -> Mapping[str, FileReport | NotAnalysed]:
        """Read the JSON report: `paths.scanned` names what was looked at, `errors` what was not understood."""
        if completed.exit_code not in (0, 1):
            raise ToolCrashed(self.name, completed.exit_code, completed.stderr.decode("utf-8", "replace"))
        try:
            report = msgspec.json.decode(completed.stdout)
            results, errors, scanned = report["results"], report["errors"], report["paths"]["scanned"]
        except (msgspec.DecodeError, KeyError, TypeError) as problem:
            raise ToolOutputInvalid(self.name, f"{type(problem).__name__}: {problem}") from problem
        answers: dict[str, FileReport | NotAnalysed] = {}
        for name in set(map(os.path.normpath, scanned)) & set(sources):
            of_file = [entry for entry in errors if os.path.normpath(entry.get("path", "")) == name]
            blind = next((entry for entry in of_file if _kind(entry) != PARTIAL), None)
            if blind is not None:
                answers[name] = NotAnalysed("", "", "parse-error", f"{_kind(blind)}: {blind.get('message', '')}"[:200])
                continue
            lines = lines_of(sources[name])
            found = (_finding(entry) for entry in results if os.path.normpath(entry["path"]) == name)
            findings = tuple(suppressed(finding, lines, _marker) for finding in found)
            answers[name] = FileReport(findings, understood=_understood(of_file, len(sources[name])))
        return answers


def _kind(error: Mapping[str, Any]) -> str:
    """Return the name of an error's type, which is a string, or a list that begins with one."""
    kind = error.get("type", "")
    return str(kind[0] if isinstance(kind, list) and kind else kind)


def _understood(errors: Sequence[Mapping[str, Any]], size_bytes: int) -> float:
    """Return the share of a file outside of what semgrep could not parse, 0 to 1."""
    if not errors or not size_bytes:
        return 1.0
    spans = sorted(
        (span["start"]["offset"], span["end"]["offset"]) for error in errors for span in error.get("spans") or ()
    )
    lost = reached = 0
    for start, end in spans:
        lost += max(end - max(start, reached), 0)
        reached = max(reached, end)
    return max(1.0 - lost / size_bytes, 0.0)


def _finding(entry: Mapping[str, Any]) -> Finding:
    start, end, extra = entry["start"], entry["end"], entry["extra"]
    # With a file as configuration the id may carry the file's folders before it.
    rule = entry["check_id"].rpartition(".")[2]
    region = Region(start["line"], start["col"], end["line"], end["col"])
    return Finding(f"semgrep/{rule}", LEVELS.get(extra["severity"], "note"), extra["message"], region)


def _marker(lines: Sequence[str], finding: Finding) -> str | None:
    """Return the comment that asks semgrep for silence, on the finding's first line or the line before."""
    wanted, number = finding.rule.removeprefix("semgrep/"), finding.region.start_line
    for text in lines[max(number - 2, 0) : number]:
        match = MARKER.search(text)
        if match is not None:
            ids = {item.strip().rpartition(".")[2] for item in (match["ids"] or "").split(",")} - {""}
            if not ids or wanted in ids:
                return match.group()
    return None
