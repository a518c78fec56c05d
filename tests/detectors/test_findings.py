"""Identity, order and baseline of findings."""

from __future__ import annotations

import tempfile
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detectors import findings
from detectors.errors import UsageError
from detectors.model import Finding, Region, Related, Suppression

lines = st.text(alphabet="ab {};", max_size=6)
found = st.lists(
    st.tuples(
        st.sampled_from(["a.c", "b.c"]),
        st.sampled_from(["ruff", "bandit"]),
        st.builds(
            Finding,
            st.sampled_from(["R1", "R2"]),
            st.sampled_from(["error", "note"]),
            st.sampled_from(["m", "n"]),
            st.builds(Region, st.integers(1, 9), st.integers(1, 9)),
            context=lines,
        ),
    ),
    max_size=30,
)


@given(found, st.randoms())
def test_order_in_changes_nothing_and_none_is_merged(items: list[tuple[str, str, Finding]], random: object) -> None:
    """Workers answer in any order; the bytes that come out must not depend on it, and N findings stay N."""
    shuffled = list(items)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    settled, _ = findings.settle(items)
    again, _ = findings.settle(shuffled)

    assert settled == again
    assert findings.digest(settled) == findings.digest(again)
    assert len(settled) == len(items)
    assert len({(item.fingerprint, item.finding.rule, item.path) for item in settled}) == len(items)
    assert list(settled) == sorted(settled, key=findings.sort_key)


@given(found, st.integers(1, 50), st.sampled_from(["x", "y"]))
def test_fingerprints_survive_moved_lines_and_new_words(
    items: list[tuple[str, str, Finding]], down: int, message: str
) -> None:
    """A finding that closes and opens again because a line was put above it loses its triage."""
    moved = [
        (
            path,
            detector,
            msgspec.structs.replace(
                finding,
                message=message,
                region=Region(finding.region.start_line + down, finding.region.start_column),
            ),
        )
        for path, detector, finding in items
    ]

    before = sorted(item.fingerprint for item in findings.settle(items)[0])

    assert before == sorted(item.fingerprint for item in findings.settle(moved)[0])


def test_context_folds_white_space_and_shortens_giant_lines() -> None:
    """A reindented line is the same line; a line of megabytes is not carried with every finding."""
    finding = Finding("R", "note", "m", Region(1))
    one = findings.with_context(finding, lambda _: "  if (a)\tb();")
    other = findings.with_context(finding, lambda _: "if(a) b();  ")
    long_a = findings.with_context(finding, lambda _: "a" * 2_000_000)
    long_b = findings.with_context(finding, lambda _: "a" * 1_999_999)

    assert one == other
    assert len(long_a.context) < 200
    assert long_a.context != long_b.context


def test_baseline_tells_new_unchanged_and_absent(tmp_path: Path) -> None:
    """Old findings must not fail a merge, and fixed ones must be seen."""
    old = Finding("R1", "error", "m", Region(1), context="old")
    gone = Finding("R1", "error", "m", Region(2), context="gone")
    new = Finding("R1", "error", "m", Region(3), context="new")
    before, _ = findings.settle([("a.c", "d", old), ("a.c", "d", gone)])
    file = tmp_path / "baseline.json"
    file.write_bytes(msgspec.json.encode({"findings": [findings.as_json(item) for item in before], "summary": {}}))

    now, absent = findings.settle([("a.c", "d", old), ("a.c", "d", new)], findings.Baseline.read(file))

    assert [item.baseline for item in now] == ["unchanged", "new"]
    assert [entry["line"] for entry in absent] == [2]
    assert findings.digest(now) == findings.digest(findings.settle([("a.c", "d", old), ("a.c", "d", new)])[0])


def rebased(tmp_path: Path, before: list[tuple[str, str, Finding]], after: list[tuple[str, str, Finding]]) -> list[str]:
    """Return `path state` of all findings after, and `path absent` of those before that are gone."""
    file = tmp_path / "baseline.json"
    located, _ = findings.settle(before)
    file.write_bytes(msgspec.json.encode({"findings": [findings.as_json(item) for item in located]}))
    now, absent = findings.settle(after, findings.Baseline.read(file))
    assert len(now) == len(after)
    return sorted([f"{item.path} {item.baseline}" for item in now] + [f"{entry['path']} absent" for entry in absent])


def named(path: str, *contexts: str) -> list[tuple[str, str, Finding]]:
    """Return one finding for each context."""
    return [(path, "d", Finding("R", "error", "m", Region(n + 1), context=text)) for n, text in enumerate(contexts)]


def test_a_renamed_file_keeps_its_findings(tmp_path: Path) -> None:
    """A move must not fail a merge; what is new in the moved file still does."""
    before = named("old.c", "a", "a", "b") + named("stays.c", "x")
    after = named("new/name.c", "a", "a", "b", "c") + named("stays.c", "x")

    assert rebased(tmp_path, before, after) == ["new/name.c new", *["new/name.c unchanged"] * 3, "stays.c unchanged"]


def test_two_that_could_be_the_old_file_are_both_new(tmp_path: Path) -> None:
    """One to one, or not at all."""
    before = named("old.c", "a", "b")
    after = named("one.c", "a", "b") + named("two.c", "a", "b")

    assert rebased(tmp_path, before, after) == [
        *["old.c absent"] * 2, *["one.c new"] * 2, *["two.c new"] * 2,
    ]  # fmt: skip


def test_another_file_with_little_in_common_is_no_rename(tmp_path: Path) -> None:
    """Half of both must agree."""
    assert rebased(tmp_path, named("old.c", "a", "b", "c"), named("new.c", "a", "x", "y")) == [
        *["new.c new"] * 3, *["old.c absent"] * 3,
    ]  # fmt: skip


@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=8), st.lists(st.sampled_from("abcd"), max_size=8))
def test_renames_lose_and_merge_nothing(before: list[str], after: list[str]) -> None:
    """Whatever is renamed and edited: each finding once, and no more unchanged than there were."""
    located, _ = findings.settle(named("old.c", *before))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "b.json"
        file.write_bytes(msgspec.json.encode({"findings": [findings.as_json(item) for item in located]}))
        now, absent = findings.settle(named("new.c", *after), findings.Baseline.read(file))
    unchanged = sum(item.baseline == "unchanged" for item in now)

    assert len(now) == len(after)
    assert unchanged + len(absent) == len(before)


@pytest.mark.parametrize("content", [b"", b"[]", b'{"findings": 3}', b"\xff"])
def test_a_file_that_is_no_baseline_is_refused(tmp_path: Path, content: bytes) -> None:
    """A baseline that is silently empty would call every finding new."""
    (tmp_path / "b.json").write_bytes(content)

    with pytest.raises(UsageError, match="no baseline"):
        findings.Baseline.read(tmp_path / "b.json")
    with pytest.raises(UsageError, match="cannot be read"):
        findings.Baseline.read(tmp_path / "missing.json")


def test_json_has_related_places_and_suppression() -> None:
    """INTERFACE fixes these keys; an empty related path means the finding's own file."""
    finding = Finding(
        "R", "error", "m", Region(1, 2), (Related("", 5, "here"), Related("b.c", 6, "there")), Suppression("# noqa")
    )
    shown = findings.as_json(findings.settle([("a.c", "d", finding)])[0][0])

    assert shown["suppressed"] is True
    assert shown["related"] == [
        {"path": "a.c", "line": 5, "message": "here"},
        {"path": "b.c", "line": 6, "message": "there"},
    ]
