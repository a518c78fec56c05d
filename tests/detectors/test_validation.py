"""The validation: each claim holds, and each is seen to fail when what it claims is broken on purpose."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest

from compliance.claims.proof import AlteredEvidence, ControlsHold, OwnCodeKeepsTheRules
from detectors import file_work, validation_demo
from detectors.cache import ResultCache
from detectors.circuit_breaker import Breaker
from detectors.claims import overhead, performance
from detectors.claims.basic_function import AnswersRightly, ManyAtOnce
from detectors.claims.fault_tolerance import BadNeighbours, DamagedCache, KilledProcesses
from detectors.claims.overhead import CostsLittle, Side
from detectors.claims.performance import AnswersFromTheCache, ManyASecond, MemoryStaysFlat, UsesTheProcessors
from detectors.enterprise_detector_pool import EnterpriseDetectorPool
from detectors.errors import ConfigurationError, UsageError
from detectors.execution import Runner
from detectors.memory_leaks import Trial
from detectors.ports import Claim, Figure, Workplace, installed_claims
from detectors.validation_demo import PARTS, ClaimVerdict, tried, validate

TIMED = (CostsLittle, ManyASecond, UsesTheProcessors)
"""Their verdicts depend on what else the machine does; that they can fail is tested, not that they hold."""
ROOT = Path(__file__).parents[2]


@pytest.fixture
def workplace(tmp_path: Path) -> Workplace:
    """A few real files of the standard library, and one that has findings for sure."""
    sources = tmp_path / "sources"
    sources.mkdir()
    for path, _ in file_work.source_files(file_work.here(), 6, 6_000):
        shutil.copyfile(path, sources / Path(path).name)
    (sources / "recursive.py").write_text(
        "def f(n):\n    return f(n - 1)\n\n\ndef g():\n    while True:\n        f(1)\n        if f(2):\n            break\n"
    )
    folder = tmp_path / "work"
    folder.mkdir()
    return Workplace(folder, (sources,), 2, 12, 0.05, 2)


def _disorder(patch: pytest.MonkeyPatch) -> None:
    """Results of a stream come in another order."""
    right = EnterpriseDetectorPool.execute_stream

    def wrong(self: EnterpriseDetectorPool, *rest: Any) -> Iterator[Any]:
        yield from list(right(self, *rest))[::-1]

    patch.setattr(EnterpriseDetectorPool, "execute_stream", wrong)


def _one_lost(patch: pytest.MonkeyPatch) -> None:
    """One execution of each call has no result of its own."""
    right = EnterpriseDetectorPool.execute_parallel

    def wrong(self: EnterpriseDetectorPool, configs: Sequence[Any], *rest: Any) -> list[Any]:
        results = right(self, configs, *rest)
        return [results[-1], *results[1:]]

    patch.setattr(EnterpriseDetectorPool, "execute_parallel", wrong)


def _slow(patch: pytest.MonkeyPatch) -> None:
    """Each call of the pool costs a second beside its detectors."""
    right = EnterpriseDetectorPool.execute_parallel

    def wrong(self: EnterpriseDetectorPool, *rest: Any) -> list[Any]:
        threading.Event().wait(1.0)
        return right(self, *rest)

    patch.setattr(EnterpriseDetectorPool, "execute_parallel", wrong)


def _leaks(patch: pytest.MonkeyPatch) -> None:
    """A detector forgets to forget."""
    patch.setattr(performance, "MEMORY_TRIAL", Trial(20_000, 20, "tests.detectors.leaking:remember"))


def _forgets(patch: pytest.MonkeyPatch) -> None:
    """Nothing is found in the cache."""
    patch.setattr(ResultCache, "lookup", lambda self, keys: {})


def _no_retry(patch: pytest.MonkeyPatch) -> None:
    """Nothing is tried again."""
    patch.setattr(Runner, "_retry", lambda self, current: None)


def _never_open(patch: pytest.MonkeyPatch) -> None:
    """No circuit ever opens."""
    patch.setattr(Breaker, "admit", lambda self: None)
    patch.setattr(Breaker, "record", lambda self, failed: None)


def _believes_all(patch: pytest.MonkeyPatch) -> None:
    """Checksums of stored values are not looked at."""
    patch.setattr("detectors.cache._checksum", lambda *_: b"same")


def _no_controls(patch: pytest.MonkeyPatch) -> None:
    """A pool takes any configuration."""
    patch.setattr("detectors.registration._configured", lambda name, config, schema: dict(config))


def _bad_code(patch: pytest.MonkeyPatch) -> None:
    """The rooms are a folder of bad code."""
    patch.setattr("compliance.claims.proof._rooms", lambda: (ROOT / "examples",))


def _verifies_all(patch: pytest.MonkeyPatch) -> None:
    """Digests of evidence are not compared."""
    from compliance.evidence_verify import Check

    patch.setattr("compliance.evidence_verify._check_file", lambda folder, subject: Check(subject.name, True, None))


BROKEN: tuple[tuple[type[Any], Callable[[pytest.MonkeyPatch], None]], ...] = (
    (AnswersRightly, _disorder),
    (AnswersRightly, _one_lost),
    (ManyAtOnce, _one_lost),
    (CostsLittle, _slow),
    (ManyASecond, _slow),
    (UsesTheProcessors, _slow),
    (MemoryStaysFlat, _leaks),
    (AnswersFromTheCache, _forgets),
    (KilledProcesses, _no_retry),
    (BadNeighbours, _never_open),
    (DamagedCache, _believes_all),
    (ControlsHold, _no_controls),
    (AlteredEvidence, _verifies_all),
    (OwnCodeKeepsTheRules, _bad_code),
)


@pytest.mark.parametrize(("claim", "broken"), BROKEN, ids=lambda item: item.__name__)
def test_a_claim_fails_when_what_it_claims_is_broken(
    claim: type[Any],
    broken: Callable[[pytest.MonkeyPatch], None],
    workplace: Workplace,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A claim that cannot fail claims nothing."""
    broken(monkeypatch)

    assert not tried(claim(), workplace).held


@pytest.mark.parametrize(
    "claim",
    [claim for claim in installed_claims() if type(claim) not in (*TIMED, OwnCodeKeepsTheRules, MemoryStaysFlat)],
    ids=lambda item: type(item).__name__,
)
def test_a_claim_holds_for_the_product_as_it_is(claim: Claim, workplace: Workplace) -> None:
    """When this fails, the project says something of itself that is not so (memory has a test of its own)."""
    shown = tried(claim, workplace)

    assert not shown.problem
    assert [figure for figure in shown.figures if not figure.held] == []
    assert shown.held


@pytest.mark.parametrize("claim", TIMED)
def test_timed_claims_come_to_a_figure(claim: type[Any], workplace: Workplace) -> None:
    """Whether they hold is the machine's to say; that they measure is ours."""
    shown = tried(claim(), workplace)

    assert shown.problem == ""
    assert all(figure.sample > 1 for figure in shown.figures)


def test_each_claim_is_broken_by_some_test_and_each_part_has_one() -> None:
    """A claim that is added without a test that sees it fail is not to be believed."""
    installed = installed_claims()

    assert {type(claim) for claim in installed} == {claim for claim, _ in BROKEN}
    assert {claim.part for claim in installed} == set(PARTS)


@pytest.mark.parametrize(
    ("figure", "held"),
    [
        (Figure("x", 5, "", 5, "at least", 1), True),
        (Figure("x", 4.9, "", 5, "at least", 1), False),
        (Figure("x", 5, "", 5, "at most", 1), True),
        (Figure("x", 5.1, "", 5, "at most", 1), False),
        (Figure("x", 0.5, "", 1, "at most", 9, 0.1, 1.2), False),
        (Figure("x", 9, "", 5, "at least", 9, 4.0, 12.0), False),
        (Figure("x", float("nan"), "", 5, "at most", 1), False),
        (Figure("x", 9, "", 5, "at least", 0), False),
    ],
)
def test_the_worse_end_of_an_interval_decides(figure: Figure, held: bool) -> None:
    """An aim that is met by luck in the middle of a wide interval is not met."""
    assert figure.held == held


class _Never:
    part: ClassVar[str] = "benchmark"
    title: ClassVar[str] = "never comes back"

    def measure(self, workplace: Workplace) -> Iterator[Figure]:
        threading.Event().wait(30)
        yield Figure("x", 1, "", 1, "at least", 1)


class _Raises:
    part: ClassVar[str] = "benchmark"
    title: ClassVar[str] = "raises after a good figure"

    def measure(self, workplace: Workplace) -> Iterator[Figure]:
        yield Figure("x", 1, "", 1, "at least", 1)
        raise ValueError("broken")


class _Nothing:
    part: ClassVar[str] = "benchmark"
    title: ClassVar[str] = "measures nothing"

    def measure(self, workplace: Workplace) -> Iterator[Figure]:
        yield from ()


@pytest.mark.parametrize(("claim", "words"), [(_Never(), "did not end"), (_Raises(), "ValueError"), (_Nothing(), "")])
def test_what_hangs_raises_or_measures_nothing_does_not_hold(claim: Claim, words: str, workplace: Workplace) -> None:
    """A product that is broken enough to spoil the trial itself must not pass it."""
    shown = tried(claim, workplace, limit_s=0.5)

    assert not shown.held
    assert words in shown.problem


def test_without_claims_nothing_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    """A validation of nothing would read as a success."""
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: ())
    with pytest.raises(ConfigurationError, match="no claims"):
        validate()


def test_what_is_asked_wrongly_is_refused(tmp_path: Path) -> None:
    """An unknown part must not end as a validation of the others."""
    with pytest.raises(UsageError, match="no part"):
        validate(parts=("speed",))
    with pytest.raises(UsageError, match="no folder"):
        validate((tmp_path / "nowhere",))
    with pytest.raises(UsageError, match="no C or Python"):
        file_work.source_files((tmp_path,), 3)


def test_the_dilation_counts_what_is_beside_the_detectors() -> None:
    """The overhead is worked out from these two numbers."""
    assert Side(wall_s=1.0, spent_s=1.8, inside_s=1.5).dilation(2) == pytest.approx((2 / 1.5, 1.8 / 1.5))
    with pytest.raises(UsageError, match="nothing ran"):
        Side(1.0, 1.0, 0.0).dilation(2)
    assert overhead.AIM_PER_CENT == 1.0


@pytest.mark.parametrize("held", [True, False])
def test_the_command_shows_each_figure_and_exits_by_the_verdict(
    held: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """A claim that fails must end the command with 1, and stand in table and JSON."""
    figure = Figure("a [red]figure[/]", 3.0, "s", 4.0 if held else 2.0, "at most", 7, 2.5, 3.5, "by hand")
    verdict = ClaimVerdict("benchmark", "a claim", (figure,), "", 0.1)
    monkeypatch.setattr(validation_demo, "tried", lambda claim, place: verdict)

    assert validation_demo.main(["--part", "benchmark", "--json", str(tmp_path / "x.json")]) == (0 if held else 1)
    out = capsys.readouterr().out
    shown = json.loads((tmp_path / "x.json").read_text())
    assert "a [red]figure[/]" in out
    assert "3 s (95 %: 2.50 to 3.50; n = 7)" in out
    assert ("held" if held else "FAILED") in out
    assert shown["held"] == shown["claims"][0]["held"] == shown["claims"][0]["figures"][0]["held"] == held


@pytest.mark.slow
def test_it_runs_as_a_script_and_as_a_command(
    tmp_path: Path, pool_command: Callable[..., subprocess.CompletedProcess[bytes]]
) -> None:
    """As a script, `detectors/` stands first on the path; a module there that shadows a library would break it."""
    asked = ["--part", "fault tolerance", "--quick"]
    script = subprocess.run(
        [sys.executable, str(ROOT / "detectors" / "validation_demo.py"), *asked],
        cwd=tmp_path, env={**os.environ}, capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    command = pool_command("validate", *asked, "--json")

    assert script.returncode == 0, script.stdout + script.stderr
    assert "3 of 3 claims hold" in script.stdout
    assert command.returncode == 0, command.stderr.decode()
    assert json.loads(command.stdout)["held"]
