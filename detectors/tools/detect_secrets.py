"""detect-secrets: keys and passwords in any text."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from detectors.canaries import Canary, laid
from detectors.detector import Tool
from detectors.errors import ToolCrashed, ToolOutputInvalid
from detectors.model import Completed, FileReport, Finding, Language, Level, NotAnalysed, Region
from detectors.parsing import decode
from detectors.tools.suppressions import lines_of, suppressed

CHECKED = re.compile(r"Checking file: (.+)$", re.MULTILINE)
MARKER = re.compile(r"pragma:\s?(?:allow|white)list(?:\s|-)?(?P<next>nextline)?(?:\s|-)?secrets?", re.IGNORECASE)
GUESSES = frozenset({"Base64 High Entropy String", "Hex High Entropy String", "Secret Keyword"})
"""Types that look at chance or at a name; the others know the form of a real key."""
MUTES = (
    "detect_secrets.filters.allowlist.is_line_allowlisted",
    # Both let a file escape by its name alone.
    "detect_secrets.filters.heuristic.is_lock_file",
    "detect_secrets.filters.heuristic.is_swagger_file",
)


class DetectSecrets(Tool):
    """
    detect-secrets without network, baseline, git or allow-lists of the tree.

    A known form of a key is an `error`, a guess by entropy or by a variable's name a `warning`. The secret itself is
    in no message.
    """

    name = "detect-secrets"
    distribution = "detect-secrets"
    languages = frozenset({"c", "cpp", "python", "text"})
    complexity_score = 5.0
    start_s = 1.0
    marks = re.compile(rb"pragma:", re.IGNORECASE)

    def prepare(self, data: bytes) -> bytes:
        """Return UTF-8: detect-secrets passes over what it cannot decode, without a word."""
        if data.isascii():
            return data
        return decode(data, "text").encode("utf-8", "surrogatepass")

    def canary(self, language: Language, token: str) -> Canary | None:
        """Return a key of a known form, made for this batch alone."""
        assert language in self.languages, "a canary is in a language that it reads"
        assert token.isalnum(), "it becomes part of a literal"
        key = f"AKIA{token[:16].upper()}"
        text = f'char key[] = "{key}";' if language in {"c", "cpp"} else f'value = "{key}"'
        return laid(language, token, "detect-secrets/aws-access-key", text)

    def command(self, files: Sequence[str]) -> list[str]:
        """Return the command; one process, and verbose, since only the log says which files were read."""
        assert files, "with nothing to read it would read the folder"
        assert not any(name.startswith("-") for name in files), "a name must not be taken for an option"
        mutes = MUTES[1:] if self.hears == "markers" else MUTES
        disabled = [part for mute in mutes for part in ("--disable-filter", mute)]
        python = (sys.executable, "-I", "-m", "detect_secrets")
        return [*python, "-v", "-c", "1", "scan", "--no-verify", "--all-files", *disabled, *files]

    def parse(self, completed: Completed, sources: Mapping[str, bytes]) -> Mapping[str, FileReport | NotAnalysed]:
        """Read the JSON baseline that a scan prints, and the log for the files read."""
        assert sources, "somebody asked"
        diagnostics = completed.stderr.decode("utf-8", "replace")
        if completed.exit_code != 0:
            raise ToolCrashed(self.name, completed.exit_code, diagnostics)
        report = msgspec.json.decode(completed.stdout)
        results: dict[str, list[dict[str, Any]]] = report["results"]
        if results.keys() - sources.keys():
            raise ToolOutputInvalid(self.name, "it names files that it was not asked about")
        read = {name.strip().removeprefix("./") for name in CHECKED.findall(diagnostics)}
        answers: dict[str, FileReport | NotAnalysed] = {}
        for name in read & set(sources):
            lines = lines_of(sources[name])
            answers[name] = FileReport(
                tuple(suppressed(_finding(entry), lines, _marker) for entry in results.get(name, []))
            )
        return answers


def _finding(entry: dict[str, Any]) -> Finding:
    if entry["line_number"] < 1:
        raise ValueError(f"a secret without a place: line {entry['line_number']}")
    if not entry["type"]:
        raise ValueError("a secret without a kind")
    kind = entry["type"]
    level: Level = "warning" if kind in GUESSES else "error"
    slug = re.sub(r"[^a-z0-9]+", "-", kind.lower()).strip("-")
    return Finding(f"detect-secrets/{slug}", level, f"possible secret: {kind}", Region(entry["line_number"]))


def _marker(lines: Sequence[str], finding: Finding) -> str | None:
    assert finding.rule.startswith("detect-secrets/"), "others have other markers"
    number = finding.region.start_line
    if not 0 < finding.region.start_line <= len(lines) + 1:
        return None
    here = MARKER.search(lines[number - 1]) if number <= len(lines) else None
    if here and not here["next"]:
        return here.group()
    above = MARKER.search(lines[number - 2]) if number > 1 else None
    return above.group() if above and above["next"] else None
