"""Bad input is refused at the door with an error that says why, reaches no detector, and leaves the pool usable."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from compliance.control import Control, Observation, Trial
from detectors.enterprise_detector_pool import EnterpriseDetectorPool, create_enterprise_pool
from detectors.errors import DetectorPoolError, UnknownDetector
from detectors.registration import BreakerPolicy, RetryPolicy

__all__ = ["InputValidation"]

SCHEMA = {
    "type": "object",
    "properties": {"limit": {"type": "integer", "minimum": 1, "maximum": 100}},
    "required": ["limit"],
    "additionalProperties": False,
}
BAD_CONFIGURATIONS: tuple[dict[str, Any], ...] = (
    {}, {"limit": 0}, {"limit": 101}, {"limit": "5"}, {"limit": None}, {"limit": 5, "shell": "rm -rf /"},
)  # fmt: skip
BAD_OPTIONS: tuple[dict[str, Any], ...] = (
    {"name": ""}, {"detector_func": None}, {"isolation": "container"}, {"isolation": "process", "timeout_s": 0},
    {"isolation": "process", "timeout_s": float("nan")}, {"timeout_s": 1.0}, {"max_concurrent": 0},
    {"memory_bytes": 1}, {"priority": 0},
)  # fmt: skip
BAD_EXECUTIONS: tuple[Any, ...] = (("trial-counted",), 7, None, [("trial-counted", (1,), {}, "more")])


class InputValidation(Control):
    """Sends bad options, configurations, policies, executions and names."""

    id = "input-validation"
    title = "Input validation and sanitisation"

    def observe(self, trial: Trial) -> Iterator[Observation]:
        """Count what was refused, and what came through."""
        assert {"limit": 3} not in BAD_CONFIGURATIONS, "what must be admitted is not called bad"
        reached: list[object] = []
        with trial.pool() as pool:
            pool.register_detector("trial-counted", reached.append, breaker=None)
            configurations = [
                partial(
                    pool.register_detector, "trial-schema", _limited, configuration, config_schema=SCHEMA, breaker=None
                )
                for configuration in BAD_CONFIGURATIONS
            ]
            yield _all_refused("configurations that break their JSON Schema", configurations)
            options = [
                partial(pool.register_detector, **{"name": "trial-bad", "detector_func": reached.append, **bad})
                for bad in BAD_OPTIONS
            ]
            yield _all_refused("registrations", options)
            yield _all_refused("policies and pools", list(_bad_makers(trial)))
            calls: list[Callable[[], object]] = [partial(pool.execute_parallel, [bad]) for bad in BAD_EXECUTIONS]
            calls += [partial(pool.execute_parallel, [("trial-counted", (1,), {})], bound) for bound in (0, -3)]
            calls += [partial(pool.execute_adaptive, [("trial-counted", (1,), {})], share) for share in (0, 1, -0.5)]
            yield _all_refused("executions", calls)
            names = ("trial-bad", "trial-schema", "no such detector", "../trial-counted")
            assert "trial-counted" not in names, "what is registered is known"
            unknown = sum(isinstance(pool.execute_detector(name, 1).error, UnknownDetector) for name in names)
            yield Observation(unknown == len(names), f"{unknown} of {len(names)} unknown names got an error")
            yield Observation(not reached, f"{len(reached)} bad inputs reached a detector")
            yield self._goes_on(pool)

    def _goes_on(self, pool: EnterpriseDetectorPool) -> Observation:
        """Tell whether good input still runs, with the configuration that the schema admitted."""
        assert not pool.closed, "a closed pool refuses good input, too"
        pool.register_detector("trial-schema", _limited, {"limit": 3}, config_schema=SCHEMA, breaker=None)
        result = pool.execute_detector("trial-schema")
        assert result.detector == "trial-schema", "a result names whose it is"
        return Observation(result.value == 3, f"afterwards a good registration ran and gave {result.value!r} of 3")


def _limited(limit: int) -> int:
    assert 1 <= limit <= 100, "its schema lets nothing else through"
    return limit


def _bad_makers(trial: Trial) -> Iterator[Callable[[], object]]:
    """Yield what would make a policy or a pool of senseless numbers."""
    assert trial.configuration is not None, "a trial knows the live pool's configuration"
    yield partial(RetryPolicy, attempts=0)
    yield partial(RetryPolicy, base_s=-1.0)
    yield partial(BreakerPolicy, failures=0)
    yield partial(create_enterprise_pool, no_such_option=1)
    assert "max_workers" in trial.configuration, "what is changed is an option"
    for changes in ({"max_workers": 0}, {"cache_size": -1}, {"cache_ttl": -1.0}, {"cache_bytes": -1}):
        yield partial(trial.pool(**changes).__enter__)


def _all_refused(what: str, calls: Sequence[Callable[[], object]]) -> Observation:
    """Call all; each must raise an error of the project's tree that says something."""
    assert calls, "nothing to try shows nothing"
    assert what, "evidence names what was tried"
    refused = 0
    for call in calls:
        try:
            _ = call()
        except DetectorPoolError as error:
            refused += bool(str(error).strip())
    assert refused <= len(calls), "each is called once"
    return Observation(refused == len(calls), f"{refused} of {len(calls)} bad {what} refused")
