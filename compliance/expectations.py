"""
Great Expectations over the tables of a run, of a pool's metrics and of a ledger's export: a result, not a log.

The library is imported here and nowhere else, since that takes seconds. Nothing is sent anywhere, no cell is kept in
results, and no progress is drawn. Column expectations alone pass an empty table, so every suite begins with the columns
and with the number of rows that the source of the table states. An expectation that cannot be evaluated is told from
data that does not hold it.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import msgspec

from compliance.errors import DataInvalid, EvidenceError, ExpectationsMissing, SuiteBroken
from detectors.errors import UsageError
from detectors.model import RunRecord, TableCheck

__all__ = [
    "Table",
    "batches_table",
    "check_tables",
    "completeness_table",
    "findings_table",
    "ledger_table",
    "metrics_table",
    "require_valid",
    "validated",
]

FINGERPRINT, RULE = "^[0-9a-f]{32}$", r"^\S+$"
MOMENT = r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|\+00:00)$"
LEVELS, BASELINE = ("error", "warning", "note"), ("none", "new", "unchanged")
STATES = ("executed", "cached", "not-analysed", "no-detector")
SHOWN = 20
TOLD = 5
"""Problems in an error's message; all are in the evidence."""
POLICY = (
    '<meta http-equiv="Content-Security-Policy" '
    "content=\"default-src 'self' data:; script-src 'self' 'unsafe-inline'; style-src 'self' 'unsafe-inline'\">"
)
"""Put into each page of the Data Docs, which would else load styles and scripts from other hosts."""

Suite = Callable[[Any, int], list[Any]]


class Table(msgspec.Struct, frozen=True):
    """One table with what is expected of it."""

    name: str
    frame: Any
    """A pandas DataFrame."""
    columns: tuple[str, ...]
    rows: int
    """As the table's source states them, not as counted in the table."""
    suite: Suite
    """Given the module of expectations and `rows`, returns what is expected beside columns and rows."""


def validated(run: RunRecord, findings: Path | None = None, docs: Path | None = None) -> RunRecord:
    """
    Hold a run's tables against their suites.

    Args:
        run: Whose findings, units and batches are checked.
        findings: The Parquet file of the evidence; one is written for the check when absent.
        docs: Folder for Data Docs, HTML pages that people read; none when absent.

    Returns:
        The run with `validated` filled in, whatever the outcome.

    Raises:
        ExpectationsMissing: The extra `validation` is not installed.
        EvidenceError: The findings or the docs cannot be read or written.
    """
    tables = [findings_table(run, findings), completeness_table(run), batches_table(run)]
    checks = check_tables(tables, docs)
    assert len(checks) == len(tables), "each table has its check"
    return msgspec.structs.replace(run, validated=checks)


def require_valid(checks: Sequence[TableCheck]) -> None:
    """
    Do nothing when all tables passed.

    Raises:
        SuiteBroken: A suite could not be evaluated.
        DataInvalid: A table does not hold what is expected.
    """
    for outcome, error in (("broken", SuiteBroken), ("failed", DataInvalid)):
        bad = [f"{one.table}: {words}" for one in checks if one.outcome == outcome for words in one.problems]
        if bad:
            raise error("; ".join(bad[:TOLD]))


def findings_table(run: RunRecord, file: Path | None = None) -> Table:
    """
    Return the findings as they stand in the evidence; the run's own list says how many rows there must be.

    Raises:
        EvidenceError: The Parquet file cannot be read.
    """
    import pandas as pd

    from compliance.formats import tables

    def suite(gxe: Any, _rows: int) -> list[Any]:
        filled = ("rule", "path", "line", "column", "level", "message", "detector", "fingerprint", "baseline")
        return [
            *(gxe.ExpectColumnValuesToNotBeNull(column=name) for name in (*filled, "suppressed")),
            gxe.ExpectColumnValuesToBeUnique(column="fingerprint"),
            gxe.ExpectColumnValuesToMatchRegex(column="fingerprint", regex=FINGERPRINT),
            gxe.ExpectColumnValuesToMatchRegex(column="rule", regex=RULE),
            gxe.ExpectColumnValuesToBeBetween(column="line", min_value=1),
            gxe.ExpectColumnValuesToBeBetween(column="column", min_value=1),
            gxe.ExpectColumnValuesToBeInSet(column="level", value_set=list(LEVELS)),
            gxe.ExpectColumnValuesToBeInSet(column="baseline", value_set=list(BASELINE)),
            gxe.ExpectColumnValuesToBeInSet(column="detector", value_set=[one.name for one in run.detectors]),
            gxe.ExpectColumnValuesToBeInSet(column="path", value_set=sorted({one.path for one in run.files})),
        ]

    try:
        if file is not None:
            frame = pd.read_parquet(file)
        else:
            with tempfile.TemporaryDirectory(prefix="findings-") as folder:
                written = Path(folder, tables.NAME)
                tables.write(run, written)
                frame = pd.read_parquet(written)
    except (OSError, ValueError) as problem:
        raise EvidenceError(f"the table of findings {file} cannot be read: {problem}") from problem
    columns = (
        "rule", "path", "line", "column", "level", "message", "detector", "fingerprint", "baseline", "suppressed",
        "waived",
    )  # fmt: skip
    return Table("findings", frame, columns, len(run.findings), suite)


def completeness_table(run: RunRecord) -> Table:
    """Return one row for each file and each detector that reads its language: its answer, or why there is none."""
    import pandas as pd

    reasons = {(entry.path, entry.detector): entry.reason for entry in run.not_analysed}
    states = {(unit.path, unit.detector): unit.state for unit in run.units}
    readers: dict[str, list[str]] = {}
    for detector in run.detectors:
        for language in detector.languages:
            readers.setdefault(language, []).append(detector.name)
    rows: list[tuple[str, str, str, str | None, str | None]] = []
    for file in run.files:
        for name in readers.get(file.language, ()):
            unit = file.path, name
            rows.append((*unit, file.language, states.pop(unit, None), reasons.get(unit)))
        if file.language not in readers:
            rows.append((file.path, "", file.language, "no-detector", f"no detector reads {file.language}"))
    unreadable = [entry for entry in run.not_analysed if not entry.detector]
    rows += [(entry.path, "", "", "not-analysed", entry.reason) for entry in unreadable]
    wanted = sum(max(1, len(readers.get(file.language, ()))) for file in run.files) + len(unreadable)
    # An answer for what was not asked is wrong, too: it makes a row too many.
    rows += [(*unit, "", state, "nobody asked for it") for unit, state in states.items()]
    assert len(rows) >= wanted, "every file has a row"
    columns = ("path", "detector", "language", "state", "reason")
    frame = pd.DataFrame(rows, columns=list(columns), dtype="object")
    return Table("completeness", frame, columns, wanted, _completeness)


def _completeness(gxe: Any, _rows: int) -> list[Any]:
    rows: Any = importlib.import_module("great_expectations.expectations.row_conditions")
    without = rows.Column("state").is_in(["not-analysed", "no-detector"])
    return [
        gxe.ExpectColumnValuesToNotBeNull(column="path"),
        gxe.ExpectColumnValuesToNotBeNull(column="state"),
        gxe.ExpectColumnValuesToBeInSet(column="state", value_set=list(STATES)),
        gxe.ExpectCompoundColumnsToBeUnique(column_list=["path", "detector"]),
        gxe.ExpectColumnValuesToNotBeNull(column="reason", row_condition=without),
    ]


def batches_table(run: RunRecord) -> Table:
    """Return the batches as they ran: the run's performance."""
    import pandas as pd

    columns = ("name", "worker", "start_s", "seconds", "predicted_s", "files")
    frame = pd.DataFrame([msgspec.structs.asdict(batch) for batch in run.batches], columns=list(columns))
    assert len(frame) == len(run.batches), "a row a batch"

    def suite(gxe: Any, _rows: int) -> list[Any]:
        limits = {"start_s": 0, "seconds": 0, "predicted_s": 0, "files": 1}
        return [
            *(gxe.ExpectColumnValuesToNotBeNull(column=name) for name in columns),
            *(gxe.ExpectColumnValuesToBeBetween(column=name, min_value=least) for name, least in limits.items()),
            gxe.ExpectColumnValuesToBeBetween(column="start_s", max_value=run.seconds),
        ]

    return Table("batches", frame, columns, len(run.batches), suite)


def metrics_table(metrics: Mapping[str, Any], detectors: Sequence[str]) -> Table:
    """
    Return a pool's metrics by detector.

    Args:
        metrics: Of `EnterpriseDetectorPool.get_pool_metrics`.
        detectors: Names that were registered, which must each have a row.

    Raises:
        UsageError: These are no metrics.
    """
    import pandas as pd

    if "detectors" not in metrics:
        raise UsageError("metrics are what get_pool_metrics returns")
    columns = ("detector", "executed", "failed", "retried", "refused", "from_cache", "seconds", "cpu_seconds")
    rows = [
        {"detector": name, **{key: values.get(key) for key in columns[1:]}}
        for name, values in metrics["detectors"].items()
    ]

    def suite(gxe: Any, _rows: int) -> list[Any]:
        return [
            gxe.ExpectColumnDistinctValuesToEqualSet(column="detector", value_set=sorted(detectors)),
            gxe.ExpectColumnValuesToBeUnique(column="detector"),
            *(gxe.ExpectColumnValuesToNotBeNull(column=name) for name in columns),
            *(gxe.ExpectColumnValuesToBeBetween(column=name, min_value=0) for name in columns[1:]),
            gxe.ExpectColumnPairValuesAToBeGreaterThanB(column_A="executed", column_B="failed", or_equal=True),
        ]

    return Table("metrics", pd.DataFrame(rows, columns=list(columns)), columns, len(detectors), suite)


def ledger_table(lines: Iterable[bytes], records: int) -> Table:
    """
    Return a ledger's export.

    Args:
        lines: Of `audit export`, JSON each; a last line with the checkpoint is passed over.
        records: As the verifier counted them.

    Raises:
        EvidenceError: A line is no JSON object.
    """
    import pandas as pd

    if records < 0:
        raise UsageError(f"a ledger has no {records} records")
    columns = ("index", "time", "kind")
    try:
        decoded = [msgspec.json.decode(line, type=dict[str, Any]) for line in lines if line.strip()]
    except msgspec.DecodeError as problem:
        raise EvidenceError(f"the export of the ledger cannot be read: {problem}") from problem
    rows = [(line.get("index"), line.get("time"), _kind(line)) for line in decoded if "checkpoint" not in line]
    frame = pd.DataFrame(rows, columns=list(columns))

    def suite(gxe: Any, rows: int) -> list[Any]:
        return [
            *(gxe.ExpectColumnValuesToNotBeNull(column=name) for name in columns),
            gxe.ExpectColumnValuesToBeUnique(column="index"),
            gxe.ExpectColumnValuesToBeBetween(column="index", min_value=0, max_value=max(rows - 1, 0)),
            gxe.ExpectColumnValuesToBeIncreasing(column="index", strictly=True),
            gxe.ExpectColumnValuesToMatchRegex(column="time", regex=MOMENT),
        ]

    return Table("ledger", frame, columns, records, suite)


def _kind(line: Mapping[str, Any]) -> str | None:
    event = line.get("event")
    if not isinstance(event, dict):
        return None
    kind = event.get("event") or event.get("type")
    return str(kind) if kind else "event"


def check_tables(tables: Sequence[Table], docs: Path | None = None) -> tuple[TableCheck, ...]:
    """
    Run one checkpoint over tables.

    Args:
        tables: Each under a name of its own.
        docs: Folder for Data Docs.

    Returns:
        A check a table, in order.

    Raises:
        ExpectationsMissing: The extra `validation` is not installed.
        EvidenceError: The docs cannot be written.
        UsageError: Two tables have one name, or there is none.
    """
    if not tables or len({table.name for table in tables}) != len(tables):
        raise UsageError("a checkpoint needs tables, each under a name of its own")
    if importlib.util.find_spec("great_expectations") is None:
        raise ExpectationsMissing
    # Read at import; some releases have a client of an analytics service.
    os.environ["GX_ANALYTICS_ENABLED"] = "false"
    import great_expectations as gx

    base: Any = importlib.import_module("great_expectations.data_context.types.base")
    # Without a site of its own, which would leave a temporary folder behind at each call.
    stores = base.InMemoryStoreBackendDefaults(init_temp_docs_sites=False)
    configuration = base.DataContextConfig(store_backend_defaults=stores, analytics_enabled=False)
    context: Any = gx.get_context(mode="ephemeral", project_config=configuration)
    context.variables.progress_bars = {"globally": False, "metric_calculations": False}
    if docs is not None:
        _add_docs(context, docs)
    checks = tuple(_checked(gx, context, table) for table in tables)
    if docs is not None:
        _build_docs(context, docs)
    assert [check.table for check in checks] == [table.name for table in tables], "in order"
    return checks


def _checked(gx: Any, context: Any, table: Table) -> TableCheck:
    """Run the checkpoint of one table; whatever its suite raises is the suite's fault."""
    rows = len(table.frame)
    try:
        gxe: Any = importlib.import_module("great_expectations.expectations")
        expected = [
            gxe.ExpectTableColumnsToMatchSet(column_set=list(table.columns), exact_match=True),
            gxe.ExpectTableRowCountToBeBetween(min_value=table.rows, max_value=table.rows),
            *table.suite(gxe, table.rows),
        ]
        results = _run(gx, context, table, expected)
    except Exception as problem:  # the library and the suite may raise anything
        return TableCheck(table.name, rows, 0, "broken", (f"{type(problem).__name__}: {str(problem)[:300]}",))
    missing = frozenset(table.columns) - frozenset(str(name) for name in table.frame.columns)
    broken: list[str] = []
    failed: list[str] = []
    for result in results:
        if result.success:
            continue
        words = _told(result)
        # A column that is not there makes expectations of it raise; that is the data's fault, and told by the columns.
        (broken if _raised(result) and not _columns(result) & missing else failed).append(words)
    if len(results) != len(expected):
        broken.append(f"{len(results)} of {len(expected)} expectations were evaluated")
    outcome: Literal["passed", "failed", "broken"] = "broken" if broken else "failed" if failed else "passed"
    assert (outcome == "passed") == (not broken and not failed), "what is told decides"
    return TableCheck(table.name, rows, len(results), outcome, tuple((broken or failed)[:SHOWN]))


def _run(gx: Any, context: Any, table: Table, expected: Sequence[Any]) -> list[Any]:
    source = context.data_sources.add_pandas(table.name)
    batch = source.add_dataframe_asset(table.name).add_batch_definition_whole_dataframe(table.name)
    suite = context.suites.add_or_update(gx.ExpectationSuite(name=table.name, expectations=list(expected)))
    definition = gx.ValidationDefinition(name=table.name, data=batch, suite=suite)
    definition = context.validation_definitions.add_or_update(definition)
    # Of the formats only these two keep no rows; the booleans alone would not say how many.
    checkpoint = gx.Checkpoint(
        name=table.name,
        validation_definitions=[definition],
        result_format={"result_format": "BASIC", "partial_unexpected_count": 0},
    )
    done = context.checkpoints.add_or_update(checkpoint).run(batch_parameters={"dataframe": table.frame})
    runs = list(done.run_results.values())
    assert len(runs) == 1, "one table, one validation"
    return list(runs[0].results)


def _raised(result: Any) -> bool:
    """Tell whether an expectation could not be evaluated; the library says so flat, or by metric."""
    info = result.exception_info or {}
    assert isinstance(info, Mapping), "the library gives a mapping"
    if "raised_exception" in info:
        return bool(info["raised_exception"])
    return any(bool(one.get("raised_exception")) for one in info.values() if isinstance(one, Mapping))


def _columns(result: Any) -> frozenset[str]:
    arguments = result.expectation_config.kwargs
    named = [arguments.get(key) for key in ("column", "column_A", "column_B")]
    found = frozenset(str(name) for name in (*named, *arguments.get("column_list", ())) if name is not None)
    assert all(found), "columns have names"
    return found


def _told(result: Any) -> str:
    """Say what does not hold, in counts and names; cells may be secrets."""
    what = result.expectation_config.type
    assert what, "an expectation has a type"
    on = f" on {', '.join(sorted(_columns(result)))}" if _columns(result) else ""
    seen = result.result or {}
    if _raised(result):
        return f"{what}{on} could not be evaluated"
    if "unexpected_count" in seen:
        return f"{what}{on}: {seen['unexpected_count']} of {seen.get('element_count')} rows"
    observed = seen.get("observed_value")
    if isinstance(observed, int):
        arguments = result.expectation_config.kwargs
        return f"{what}{on}: {observed}, not {arguments.get('min_value')}"
    if isinstance(observed, list) and what.endswith("columns_to_match_set"):
        return f"{what}: there are {', '.join(sorted(map(str, observed))[:SHOWN])}"
    return f"{what}{on} does not hold"


def _add_docs(context: Any, docs: Path) -> None:
    if docs.exists() and (not docs.is_dir() or any(docs.iterdir())):
        raise EvidenceError(f"{docs} exists and is not an empty folder; name a new one for the Data Docs")
    for name in list(context.get_site_names()):
        context.delete_data_docs_site(site_name=name)
    context.add_data_docs_site(
        site_name="detector_pool",
        site_config={
            "class_name": "SiteBuilder",
            "site_index_builder": {"class_name": "DefaultSiteIndexBuilder", "show_cta_footer": False},
            "store_backend": {"class_name": "TupleFilesystemStoreBackend", "base_directory": str(docs.absolute())},
        },
    )
    assert list(context.get_site_names()) == ["detector_pool"], "one place for the docs"


def _build_docs(context: Any, docs: Path) -> None:
    """Write the pages, and keep them from loading anything from elsewhere."""
    context.build_data_docs()
    pages = list(_pages(docs))
    if not pages:
        raise EvidenceError(f"no Data Docs were written to {docs}")
    for page in pages:
        text = page.read_text("utf-8")
        _ = page.write_text(text.replace("<head>", f"<head>{POLICY}", 1), "utf-8")


def _pages(docs: Path) -> Iterator[Path]:
    if not docs.is_dir():
        return
    yield from sorted(docs.rglob("*.html"))
