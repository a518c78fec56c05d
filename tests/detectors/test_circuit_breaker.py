"""The circuit breaker against a model that is written down as rules."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from detectors import EnterpriseDetectorPool
from detectors.circuit_breaker import Breaker
from detectors.enterprise_detector_pool import BreakerPolicy
from detectors.errors import CircuitOpen

FAILURES, RESET_S, SUCCESSES = 3, 10.0, 2


class BreakerModel(RuleBasedStateMachine):
    """Closed until so many failures in a row; open for a time; half-open, one at a time, until so many successes."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 100.0
        self.told: list[tuple[str, str]] = []
        self.breaker = Breaker(
            BreakerPolicy(FAILURES, RESET_S, SUCCESSES), lambda old, new: self.told.append((old, new)), lambda: self.now
        )
        self.state, self.failures, self.successes, self.opened_at = "closed", 0, 0, 0.0
        self.running = 0
        self.changes: list[tuple[str, str]] = []
        self.refused = 0

    def _to(self, state: str) -> None:
        self.changes.append((self.state, state))
        self.state, self.failures, self.successes = state, 0, 0
        if state == "open":
            self.opened_at = self.now

    @rule(seconds=st.sampled_from([0.5, 4.0, 11.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def ask(self) -> None:
        allowed = self.breaker.admit() is None
        if self.state == "open" and self.now >= self.opened_at + RESET_S:
            self._to("half-open")
        expected = self.state == "closed" or (self.state == "half-open" and self.running == 0)
        assert allowed == expected
        self.refused += not allowed
        self.running += allowed

    @precondition(lambda self: self.running > 0)
    @rule(failed=st.booleans())
    def end(self, failed: bool) -> None:
        self.running -= 1
        self.breaker.record(failed)
        if self.state == "closed":
            self.failures = self.failures + 1 if failed else 0
            if self.failures == FAILURES:
                # Those that still run began before it opened, and no longer count.
                for _ in range(self.running):
                    self.breaker.record(True)
                self.running = 0
                self._to("open")
        elif self.state == "half-open":
            self.successes += not failed
            if failed:
                self._to("open")
            elif self.successes == SUCCESSES:
                self._to("closed")

    @invariant()
    def agrees(self) -> None:
        seen = self.breaker.state()
        assert seen.state == self.state
        assert seen.refused == self.refused
        assert seen.opened == sum(new == "open" for _, new in self.changes)
        assert self.told == self.changes
        assert self.breaker.calm == (self.state == "closed" and self.failures == 0)


BreakerModel.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestBreakerAgainstItsModel = BreakerModel.TestCase


def test_a_detector_that_keeps_failing_is_left_alone_and_others_are_not() -> None:
    """When this fails, a broken detector is called for every unit of a long run, or takes others with it."""
    called: list[int] = []

    def broken(n: int) -> None:
        called.append(n)
        raise OSError(n)

    with EnterpriseDetectorPool(max_workers=2) as pool:
        pool.register_detector("broken", broken, breaker=BreakerPolicy(failures=3, reset_s=3600), max_concurrent=1)
        pool.register_detector("fine", lambda n: n)
        asked = [(name, (n,), {}) for n in range(50) for name in ("broken", "fine")]
        results = pool.execute_parallel(asked)
        metrics = pool.get_pool_metrics()["detectors"]["broken"]

    assert [item.value for item in results[1::2]] == list(range(50))
    kinds = [type(item.error) for item in results[::2]]
    assert sorted(called) == [n for n, kind in enumerate(kinds) if kind is OSError]
    assert (kinds.count(OSError), kinds.count(CircuitOpen)) == (3, 47)
    assert (metrics["executed"], metrics["failed"], metrics["refused"]) == (3, 3, 47)
    assert (metrics["breaker"]["state"], metrics["breaker"]["opened"]) == ("open", 1)


def test_half_open_lets_one_through_and_closes_again() -> None:
    """When this fails, a detector that is well again is never asked again."""
    broken = [True]

    def moody() -> str:
        if broken[0]:
            raise OSError
        return "well"

    with EnterpriseDetectorPool(max_workers=1) as pool:
        pool.register_detector("moody", moody, breaker=BreakerPolicy(failures=1, reset_s=0))
        assert not pool.execute_detector("moody").ok
        broken[0] = False
        assert pool.execute_detector("moody").value == "well"
        state = pool.get_pool_metrics()["detectors"]["moody"]["breaker"]

    assert (state["state"], state["opened"]) == ("closed", 1)
