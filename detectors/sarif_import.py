"""
Results of any other tool, taken in from a SARIF 2.1.0 log: they join baseline, history and evidence.

The log is held against the official schema, and bounded in size and number. Whatever is in it is text and numbers:
nothing that it names is opened, and a place outside of the scanned tree stays a name. Each result becomes one
finding, but for those that say that nothing is wrong (`kind` other than `fail`) or that it is gone (`absent`): they are
counted.

Source: OASIS "Static Analysis Results Interchange Format (SARIF) Version 2.1.0", §3.4, §3.11, §3.14, §3.27 to §3.30.
"""

from __future__ import annotations

import hashlib
import os
import posixpath
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import unquote_to_bytes, urljoin, urlsplit

import msgspec

from detectors.errors import ImportUnusable
from detectors.findings import with_context
from detectors.model import (
    DetectorRecord,
    Digest,
    Finding,
    Imported,
    ImportRecord,
    Level,
    Region,
    Related,
    RuleRecord,
    Suppression,
)
from detectors.snapshot import Snapshot, report_path

__all__ = ["NOWHERE", "OUTSIDE", "PREFIX", "SCHEMA", "read_imports"]

PREFIX: Final = "import:"
"""Before the tool's name, in the names of detectors that did not run here."""
OUTSIDE, NOWHERE = "(outside)", "(no place)"
"""Report paths of results that are in no file of the tree."""
SCHEMA: Final = "sarif-schema-2.1.0.json"
MAX_BYTES = 64 << 20
MAX_RESULTS = 200_000
MAX_NUMBER = (1 << 31) - 1
"""Of lines and columns: what tables hold."""
MAX_TEXT = 4000
MAX_NAME = 200
MAX_RELATED = 100
MAX_BASES = 10
PLACEHOLDER: Final = re.compile(r"\{(\d{1,4})\}")
LEVELS: Final[Mapping[str, Level]] = {"error": "error", "warning": "warning", "note": "note", "none": "note"}
ToolLevel = Literal["none", "note", "warning", "error"]
LineOf = Callable[[str], Callable[[int], str] | None]
"""Given a report path, what gives the text of a line of that file; None for what is no file of the tree."""


class _Part(msgspec.Struct, frozen=True, rename="camel"):
    """Of a log; what is not named here is not read."""


class _Message(_Part, frozen=True, rename="camel"):
    text: str = ""
    id: str = ""
    arguments: tuple[str, ...] = ()


class _Artifact(_Part, frozen=True, rename="camel"):
    uri: str = ""
    uri_base_id: str = ""
    index: int = -1


class _Region(_Part, frozen=True, rename="camel"):
    start_line: int = 1
    start_column: int = 1
    end_line: int = 0
    end_column: int = 0


class _Physical(_Part, frozen=True, rename="camel"):
    artifact_location: _Artifact = _Artifact()
    region: _Region = _Region()


class _Location(_Part, frozen=True, rename="camel"):
    physical_location: _Physical | None = None
    message: _Message = _Message()


class _Excuse(_Part, frozen=True, rename="camel"):
    kind: str
    status: str = "accepted"
    justification: str = ""


class _Target(_Part, frozen=True, rename="camel"):
    id: str = ""
    index: int = -1


class _Result(_Part, frozen=True, rename="camel"):
    message: _Message
    rule_id: str = ""
    rule_index: int = -1
    rule: _Target = _Target()
    kind: str = "fail"
    level: ToolLevel | None = None
    locations: tuple[_Location, ...] = ()
    related_locations: tuple[_Location, ...] = ()
    suppressions: tuple[_Excuse, ...] | None = None
    baseline_state: str = ""


class _Configuration(_Part, frozen=True, rename="camel"):
    level: ToolLevel = "warning"


class _Rule(_Part, frozen=True, rename="camel"):
    id: str
    short_description: _Message = _Message()
    full_description: _Message = _Message()
    help: _Message = _Message()
    message_strings: dict[str, _Message] = {}
    default_configuration: _Configuration = _Configuration()


class _Driver(_Part, frozen=True, rename="camel"):
    name: str
    version: str = ""
    semantic_version: str = ""
    rules: tuple[_Rule, ...] = ()


class _Tool(_Part, frozen=True, rename="camel"):
    driver: _Driver


class _Listed(_Part, frozen=True, rename="camel"):
    location: _Artifact = _Artifact()


class _Run(_Part, frozen=True, rename="camel"):
    tool: _Tool
    results: tuple[_Result, ...] | None = None
    artifacts: tuple[_Listed, ...] = ()
    original_uri_base_ids: dict[str, _Artifact] = {}
    column_kind: str = "utf16CodeUnits"
    external_property_file_references: dict[str, Any] | None = None


class _Log(_Part, frozen=True, rename="camel"):
    runs: tuple[_Run, ...]


def read_imports(files: Sequence[Path], snapshot: Snapshot, line_of: LineOf) -> Imported:
    """
    Read logs.

    Args:
        files: SARIF, UTF-8.
        snapshot: The tree of the run.
        line_of: Gives the lines that fingerprints stand on.

    Raises:
        ImportUnusable: A file cannot be read, is too large, or is no log by the schema.
    """
    findings: list[tuple[str, str, Finding]] = []
    known: set[tuple[str, str, Finding]] = set()
    records: list[ImportRecord] = []
    tools: dict[str, list[tuple[_Driver, Digest]]] = {}
    for file in files:
        data, log = _read(file)
        digest = Digest("sha256:" + hashlib.sha256(data).hexdigest())
        for run in log.runs:
            reader = _Reader(run, snapshot, line_of, str(file))
            taken = [(item, reader.is_known(result)) for result, item in reader.findings()]
            findings += (item for item, _ in taken)
            known |= {item for item, old in taken if old}
            count = len(run.results or ())
            records.append(ImportRecord(reader.detector, file.name, digest, count, len(taken), count - len(taken)))
            tools.setdefault(reader.detector, []).append((run.tool.driver, digest))
    if len(findings) > MAX_RESULTS:
        raise ImportUnusable(str(files[0]), f"more than {MAX_RESULTS} results in all; leave out what nobody will read")
    assert sum(record.findings for record in records) == len(findings), "a result is taken in once"
    detectors = tuple(_detector(name, drivers, findings) for name, drivers in sorted(tools.items()))
    return Imported(tuple(findings), frozenset(known), detectors, tuple(records))


def _read(file: Path) -> tuple[bytes, _Log]:
    try:
        with file.open("rb") as opened:
            data = opened.read(MAX_BYTES + 1)
    except OSError as problem:
        raise ImportUnusable(str(file), problem.strerror or type(problem).__name__) from problem
    if len(data) > MAX_BYTES:
        raise ImportUnusable(str(file), f"it is larger than {MAX_BYTES} bytes")
    try:
        value = msgspec.json.decode(data.removeprefix(b"\xef\xbb\xbf"))
        problem_of_shape = _unlike_schema(value)
        if problem_of_shape is not None:
            raise ImportUnusable(str(file), f"it is no SARIF 2.1.0 log: {problem_of_shape}")
        return data, msgspec.convert(value, _Log)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as problem:
        raise ImportUnusable(str(file), f"it is no SARIF log ({problem})") from problem


def _unlike_schema(value: object) -> str | None:
    """Return the first thing that the schema does not allow; None where all is allowed."""
    import jsonschema_rs

    schema = msgspec.json.decode(resources.files("detectors").joinpath(SCHEMA).read_bytes())
    try:
        jsonschema_rs.validator_for(schema).validate(value)
    except jsonschema_rs.ValidationError as problem:
        place = "/".join(str(part) for part in problem.instance_path)
        return f"{place[:MAX_NAME]}: {problem.message[:MAX_NAME]}"
    return None


class _Reader:
    """One run of a log."""

    def __init__(self, run: _Run, snapshot: Snapshot, line_of: LineOf, file: str) -> None:
        if run.external_property_file_references:
            raise ImportUnusable(file, "it keeps results in other files, which are not opened; write it in one")
        self._run, self._line_of = run, line_of
        self._tool = _named(run.tool.driver.name).lower()
        self.detector = PREFIX + self._tool
        self._roots = [(root.label, os.fsencode(root.path)) for root in snapshot.roots]
        self._paths = {file.path for file in snapshot.files}
        self._rules = {rule.id: rule for rule in run.tool.driver.rules}

    def findings(self) -> Iterator[tuple[_Result, tuple[str, str, Finding]]]:
        """Yield the results that say that something is wrong, each as a finding in its place."""
        for result in self._run.results or ():
            if result.kind == "fail" and result.baseline_state != "absent":
                yield result, self._finding(result)

    def is_known(self, result: _Result) -> bool:
        """Tell whether the tool says that it had the result before."""
        return result.baseline_state in {"unchanged", "updated"}

    def _finding(self, result: _Result) -> tuple[str, str, Finding]:
        rule_id = result.rule_id or result.rule.id or self._id_at(result)
        rule = self._rules.get(rule_id) or self._rules.get(rule_id.rpartition("/")[0])
        level = result.level or (rule.default_configuration.level if rule else "warning")
        path, region = self._place(result.locations[0] if result.locations else _Location())
        message = _told(result.message, rule)
        finding = Finding(
            f"{self._tool}/{_named(rule_id)}" if rule_id else f"{self._tool}/(no rule)", LEVELS[level],
            message or "(no message)", region, tuple(self._related(result)), _excuse(result),
        )  # fmt: skip
        line = self._line_of(path)
        # What is in no file of the tree is known again by its words.
        return path, self.detector, with_context(finding, line or (lambda _: message))

    def _id_at(self, result: _Result) -> str:
        index = result.rule_index if result.rule_index >= 0 else result.rule.index
        rules = self._run.tool.driver.rules
        return rules[index].id if 0 <= index < len(rules) else ""

    def _related(self, result: _Result) -> Iterator[Related]:
        more = (*result.locations[1:], *result.related_locations)
        for location in more[:MAX_RELATED]:
            path, region = self._place(location)
            yield Related(path, region.start_line, _told(location.message, None))

    def _place(self, location: _Location) -> tuple[str, Region]:
        physical = location.physical_location
        if physical is None:
            return NOWHERE, Region(1)
        path = self._path(physical.artifact_location)
        line = self._line_of(path)
        given = physical.region
        start, end = _bounded(given.start_line), _bounded(given.end_line) if given.end_line else 0
        column = self._column(given.start_column, line, start)
        if not given.end_column:
            return path, Region(start, column)
        end = end or start
        return path, Region(start, column, end, self._column(given.end_column, line, end))

    def _column(self, column: int, line: Callable[[int], str] | None, number: int) -> int:
        """Return a column in code points; by default SARIF counts halves of surrogate pairs."""
        column = _bounded(column)
        if line is None or self._run.column_kind != "utf16CodeUnits":
            return column
        before = line(number).encode("utf-16-le", "surrogatepass")[: 2 * (column - 1)]
        beyond = max(0, column - 1 - len(before) // 2)
        return len(before.decode("utf-16-le", "replace")) + beyond + 1

    def _path(self, artifact: _Artifact) -> str:
        if not artifact.uri and 0 <= artifact.index < len(self._run.artifacts):
            artifact = self._run.artifacts[artifact.index].location
        uri = self._resolved(artifact)
        if not uri:
            return NOWHERE
        parts = urlsplit(uri)
        raw = unquote_to_bytes(parts.path)
        absolute = parts.scheme == "file" or (not parts.scheme and raw.startswith(b"/"))
        for label, root in self._roots:
            inside = os.path.relpath(posixpath.normpath(raw), root) if absolute else posixpath.normpath(raw)
            path = report_path(inside, label)
            if path in self._paths:
                return path
            # With several trees, a log may name a file with the tree's label, as our own do.
            if not absolute and report_path(inside, "") in self._paths:
                return report_path(inside, "")
        return f"{OUTSIDE}/{_named(report_path(raw, '').lstrip('/'))}"

    def _resolved(self, artifact: _Artifact) -> str:
        uri, base = artifact.uri, artifact.uri_base_id
        for _ in range(MAX_BASES):
            known = self._run.original_uri_base_ids.get(base)
            if known is None or urlsplit(uri).scheme:
                break
            uri, base = urljoin(known.uri, uri) if known.uri else uri, known.uri_base_id
        return uri


def _detector(
    name: str, drivers: Sequence[tuple[_Driver, Digest]], findings: Sequence[tuple[str, str, Finding]]
) -> DetectorRecord:
    """Return what the record says of a tool that ran elsewhere; its code is not known, so the logs stand for it."""
    tool = name.removeprefix(PREFIX)
    versions = dict.fromkeys(_named(driver.semantic_version or driver.version) for driver, _ in drivers)
    state = hashlib.sha256(b"".join(digest.encode() for _, digest in drivers))
    digest = Digest("sha256:" + state.hexdigest())
    rules: dict[str, RuleRecord] = {}
    seen = {finding.rule for _, detector, finding in findings if detector == name}
    for driver, _ in drivers:
        for rule in driver.rules:
            id_ = f"{tool}/{_named(rule.id)}"
            if id_ in seen and id_ not in rules:
                rules[id_] = _rule(id_, rule)
    assert set(rules) <= seen, "rules that report nothing are not described"
    return DetectorRecord(
        name, ", ".join(filter(None, versions)) or "unknown", digest, digest, (), tuple(rules.values())
    )


def _rule(id_: str, rule: _Rule) -> RuleRecord:
    summary = rule.short_description.text or rule.full_description.text or id_
    help_ = rule.help.text or rule.full_description.text or summary
    return RuleRecord(id_, LEVELS[rule.default_configuration.level], summary[:MAX_TEXT], help_[:MAX_TEXT])


def _told(message: _Message, rule: _Rule | None) -> str:
    """Return a message with its arguments in their places (§3.11.5)."""
    known = rule.message_strings.get(message.id) if rule is not None else None
    text = message.text or (known.text if known is not None else message.id)

    def argument(found: re.Match[str]) -> str:
        number = int(found.group(1))
        return message.arguments[number] if number < len(message.arguments) else found.group()

    told = PLACEHOLDER.sub(argument, text[:MAX_TEXT]) if message.arguments else text
    return told if len(told) <= MAX_TEXT else told[: MAX_TEXT - 1] + "…"


def _excuse(result: _Result) -> Suppression | None:
    """Return why the tool lets it pass: it must have been accepted, a request is none (§3.35.3)."""
    for one in result.suppressions or ():
        if one.status == "accepted":
            return Suppression(f"sarif {_named(one.kind)}", one.justification[:MAX_TEXT])
    return None


def _bounded(number: int) -> int:
    return min(max(number, 1), MAX_NUMBER)


def _named(text: str) -> str:
    """Return a name on one line, of a length that tables and terminals bear."""
    return "".join(c if c.isprintable() else "?" for c in text)[:MAX_NAME]
