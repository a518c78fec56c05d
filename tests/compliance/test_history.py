"""Findings over runs: what is new, fixed, back, and since when; and which folders are not believed."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from compliance.errors import KeyUnusable
from compliance.evidence import collect
from compliance.followed import Followed
from compliance.history import history_of
from compliance.signing import SigningKey
from detectors import findings
from detectors.errors import UsageError
from detectors.model import Excluded, Finding, Narrowed, NotAnalysed, Region, Root, RunRecord, SinceRecord, UnitRecord
from tests.compliance.conftest import make_run

C = "power-of-ten-c"
GOTO = Finding("P10-R1-goto", "warning", "goto hides the flow", Region(3, 5), context="gotoout;")


def past(day: int, found: Sequence[tuple[str, str, Finding]], files: Sequence[str] = ("a.c",)) -> RunRecord:
    """A whole run of January 2026 by one detector."""
    shape = make_run(found=())
    run_id = f"{day:032x}"
    located, _ = findings.settle(found)
    return msgspec.structs.replace(
        shape, run_id=run_id, started=f"2026-01-{day:02}T03:00:00.000Z", detectors=shape.detectors[:1],
        files=tuple(msgspec.structs.replace(shape.files[0], path=path, raw=path.encode()) for path in sorted(files)),
        units=tuple(UnitRecord(path, C, "executed", run_id) for path in sorted(files)), findings=located,
        planned=len(files), executed=len(files), excluded=(), not_analysed=(), batches=(),
        findings_digest=findings.digest(located),
    )  # fmt: skip


def unanswered(run: RunRecord, path: str) -> RunRecord:
    units = tuple(
        msgspec.structs.replace(unit, state="not-analysed") if unit.path == path else unit for unit in run.units
    )
    return msgspec.structs.replace(run, units=units, not_analysed=(NotAnalysed(path, C, "crashed"),))


def kept(folder: Path, key: SigningKey, *runs: RunRecord) -> Path:
    for run in runs:
        collect(run, folder / run.run_id[-4:], key)
    return folder


def only(folder: Path) -> Followed:
    (one,) = history_of(folder).findings
    return one


def test_a_finding_is_new_then_open_then_fixed_then_back(tmp_path: Path, key: SigningKey) -> None:
    """The four states that people act on, with the runs and the days."""
    folder = kept(tmp_path / "evidence", key, past(1, ()), past(2, [("a.c", C, GOTO)]))
    assert (only(folder).state, only(folder).age_days) == ("new", 0)

    kept(folder, key, past(4, [("a.c", C, GOTO)]))
    assert (only(folder).state, only(folder).age_days, only(folder).first_seen) == ("open", 2, f"{2:032x}")

    kept(folder, key, past(5, ()), past(7, ()))
    fixed = only(folder)
    assert (fixed.state, fixed.age_days, fixed.fixed_in, fixed.last_seen) == ("fixed", 3, f"{5:032x}", f"{4:032x}")

    kept(folder, key, past(9, [("a.c", C, GOTO)]))
    back = only(folder)
    assert (back.state, back.age_days, back.reopenings, back.fixed_in) == ("reopened", 7, 1, None)
    runs = history_of(folder).runs
    assert [(run.new, run.reopened, run.fixed, run.open) for run in runs] == [
        (0, 0, 0, 0), (1, 0, 0, 1), (0, 0, 0, 1), (0, 0, 1, 0), (0, 0, 0, 0), (0, 1, 0, 1),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("later", "state"),
    [
        pytest.param(past(2, ()), "fixed", id="looked and did not find"),
        pytest.param(past(2, (), files=["b.c"]), "fixed", id="the file is gone"),
        pytest.param(unanswered(past(2, ()), "a.c"), "open", id="not analysed"),
        pytest.param(
            msgspec.structs.replace(past(2, (), files=["b.c"]), excluded=(Excluded("a.c", "--exclude a.c"),)), "open",
            id="out of scope",
        ),
        pytest.param(
            msgspec.structs.replace(past(2, (), files=["b.c"]), not_analysed=(NotAnalysed("a.c", "", "unreadable"),)),
            "open", id="unreadable",
        ),
        pytest.param(
            msgspec.structs.replace(past(2, (), files=["b.c"]), roots=(Root("", "/src", listed=True),)), "open",
            id="only other files were named",
        ),
        pytest.param(
            msgspec.structs.replace(
                past(2, ()), units=(), planned=0, executed=0,
                since=SinceRecord("main", "0" * 40, (), (Narrowed(C, ()),)),
            ),
            "open", id="excluded by --since",
        ),
        pytest.param(
            msgspec.structs.replace(
                past(2, ()), detectors=(msgspec.structs.replace(make_run().detectors[1], languages=()),), units=(),
                planned=0, executed=0,
            ),
            "open", id="by another detector",
        ),
    ],
)  # fmt: skip
def test_only_who_looked_can_say_that_it_is_fixed(
    later: RunRecord, state: str, tmp_path: Path, key: SigningKey
) -> None:
    """A tool that crashed, a file out of scope: silence is not a repair."""
    folder = kept(tmp_path / "evidence", key, past(1, [("a.c", C, GOTO)]), later)

    assert not history_of(folder).left_out
    assert only(folder).state == state


def test_folders_that_do_not_verify_are_named_and_left_out(tmp_path: Path, key: SigningKey) -> None:
    """A damaged, an unsigned, a doubled and a forged run: none may change what is told, none may go unnoticed."""
    folder = kept(tmp_path / "evidence", key, past(1, [("a.c", C, GOTO)]), past(2, [("a.c", C, GOTO)]), past(3, ()))
    damaged = folder / "0003" / "findings.parquet"
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"\0")
    shutil.copytree(folder / "0002", folder / "copy")
    (folder / "notes").mkdir()
    (folder / "README").write_text("no folder")
    kept(folder, SigningKey.load_or_create(tmp_path / "forger", None), past(4, ()))
    shutil.copy(folder / "0001" / "public-key.pem", tmp_path / "trusted.pem")

    told = history_of(folder, tmp_path / "trusted.pem")
    assert {one.folder for one in told.left_out} == {"0003", "0004", "copy", "notes"}
    assert all(one.problem for one in told.left_out)
    assert [one.state for one in told.findings] == ["open"]
    assert told.anchored
    assert not history_of(folder).anchored
    with pytest.raises(KeyUnusable):
        history_of(folder, folder / "README")
    with pytest.raises(UsageError):
        history_of(folder / "README")


def test_runs_of_other_trees_fix_nothing(tmp_path: Path, key: SigningKey) -> None:
    """Two trees may share an evidence folder; a checkout in a new folder each time is one tree, if that is said."""
    elsewhere = msgspec.structs.replace(past(2, ()), roots=(Root("", "/other"),))
    folder = kept(tmp_path / "evidence", key, past(1, [("a.c", C, GOTO)]), elsewhere)

    assert [one.state for one in history_of(folder).findings] == ["new"]
    assert [one.state for one in history_of(folder, one_tree=True).findings] == ["fixed"]


def test_nothing_at_all_is_a_history_too(tmp_path: Path) -> None:
    """The first night begins with an empty folder."""
    told = history_of(tmp_path)
    assert (told.runs, told.findings, told.left_out) == ((), (), ())
