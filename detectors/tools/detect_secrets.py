"""detect-secrets: keys and passwords in any text."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from detectors.detector import Tool
from detectors.errors import ToolCrashed
from detectors.model import Completed, FileReport, Finding, Level, NotAnalysed, Region
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

    def prepare(self, data: bytes) -> bytes:
        """Return UTF-8: detect-secrets passes over what it cannot decode, without a word."""
        return decode(data, "text").encode("utf-8", "surrogatepass")

    def command(self, files: Sequence[str]) -> list[str]:
        """Return the command; one process, and verbose, since only the log says which files were read."""
        disabled = [part for mute in MUTES for part in ("--disable-filter", mute)]
        python = (sys.executable, "-I", "-m", "detect_secrets")
        return [*python, "-v", "-c", "1", "scan", "--no-verify", "--all-files", *disabled, *files]

    def parse(self, completed: Completed, sources: Mapping[str, bytes]) -> Mapping[str, FileReport | NotAnalysed]:
        """Read the JSON baseline that a scan prints, and the log for the files read."""
        diagnostics = completed.stderr.decode("utf-8", "replace")
        if completed.exit_code != 0:
            raise ToolCrashed(self.name, completed.exit_code, diagnostics)
        report = msgspec.json.decode(completed.stdout)
        results: dict[str, list[dict[str, Any]]] = report["results"]
        read = {name.strip().removeprefix("./") for name in CHECKED.findall(diagnostics)}
        answers: dict[str, FileReport | NotAnalysed] = {}
        for name in read & set(sources):
            lines = lines_of(sources[name])
            answers[name] = FileReport(
                tuple(suppressed(_finding(entry), lines, _marker) for entry in results.get(name, []))
            )
        return answers


def _finding(entry: dict[str, Any]) -> Finding:
    kind = entry["type"]
    level: Level = "warning" if kind in GUESSES else "error"
    slug = re.sub(r"[^a-z0-9]+", "-", kind.lower()).strip("-")
    return Finding(f"detect-secrets/{slug}", level, f"possible secret: {kind}", Region(entry["line_number"]))


def _marker(lines: Sequence[str], finding: Finding) -> str | None:
    number = finding.region.start_line
    here = MARKER.search(lines[number - 1]) if 0 < number <= len(lines) else None
    if here and not here["next"]:
        return here.group()
    above = MARKER.search(lines[number - 2]) if 1 < number <= len(lines) + 1 else None
    return above.group() if above and above["next"] else None
