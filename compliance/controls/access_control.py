"""Who may not, cannot: at every door of the pool, by the live policy, and each denial is recorded."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Iterator

from compliance.control import Control, Observation, RecordedEvents, Trial
from detectors.enterprise_detector_pool import EnterpriseDetectorPool
from detectors.errors import AccessDenied
from detectors.execution import DetectorConfig, DetectorResult
from detectors.ports import Action

__all__ = ["AccessControl"]

FORBIDDEN, PERMITTED = "trial-forbidden", "trial-permitted"
Door = Callable[[EnterpriseDetectorPool], list[DetectorResult]]
BOTH: list[DetectorConfig] = [(FORBIDDEN, (), {}), (PERMITTED, (), {})]
DOORS: dict[str, Door] = {
    "execute_detector": lambda pool: [pool.execute_detector(FORBIDDEN), pool.execute_detector(PERMITTED)],
    "execute_parallel": lambda pool: pool.execute_parallel(BOTH),
    "execute_adaptive": lambda pool: pool.execute_adaptive(BOTH),
    "execute_stream": lambda pool: list(pool.execute_stream(iter(BOTH))),
    "execute_parallel_async": lambda pool: asyncio.run(pool.execute_parallel_async(BOTH)),
    "execute_adaptive_async": lambda pool: asyncio.run(pool.execute_adaptive_async(BOTH)),
}


class _RolePolicy:
    """Lets nobody register `trial-unregistered`, and execute only what names no role."""

    def denial(self, action: Action, target: str, roles: frozenset[str], _tree: str = "", /) -> str | None:
        """Say why not."""
        assert action in ("register", "run"), "the trial opens no store"
        assert target.startswith("trial-"), "it is asked about the trial's own detectors only"
        if action == "register":
            return "the trial denies it" if target == "trial-unregistered" else None
        return f"needs one of {sorted(roles)}" if roles else None


class AccessControl(Control):
    """Tries forbidden calls through every door, under a policy of its own and under the live one."""

    id = "access-control"
    title = "Security controls and access management"

    def observe(self, trial: Trial) -> Iterator[Observation]:
        """Count what was denied, what ran all the same, and what was recorded."""
        ran: list[str] = []
        sink = RecordedEvents()
        with trial.pool(access_policy=_RolePolicy(), audit_mode=True, audit_sink=sink) as pool:
            pool.register_detector(FORBIDDEN, lambda: ran.append(FORBIDDEN), roles=("nobody",))
            pool.register_detector(PERMITTED, lambda: PERMITTED)
            denied = allowed = 0
            for through in DOORS.values():
                forbidden, permitted = through(pool)
                assert (forbidden.detector, permitted.detector) == (FORBIDDEN, PERMITTED), "in the order asked"
                denied += isinstance(forbidden.error, AccessDenied)
                allowed += permitted.value == PERMITTED
            refused = _registration_denied(pool)
        assert denied + allowed <= 2 * len(DOORS), "each door is tried twice"
        yield Observation(
            denied == len(DOORS) and not ran,
            f"{denied} of {len(DOORS)} doors denied a forbidden execution, which ran {len(ran)} times",
        )
        yield Observation(allowed == len(DOORS), f"{allowed} of {len(DOORS)} doors let the permitted one through")
        recorded = len(sink.of_kind("access-denied"))
        yield Observation(
            refused and recorded == len(DOORS) + 1,
            f"a forbidden registration was {'denied' if refused else 'let through'}; "
            f"{recorded} of {len(DOORS) + 1} denials recorded",
        )
        yield self._by_the_live_policy(trial)

    def _by_the_live_policy(self, trial: Trial) -> Observation:
        """Call what only the holder of a role may call that was made up a moment ago."""
        policy = trial.configuration.get("access_policy")
        role, ran = f"nobody-{secrets.token_hex(8)}", []
        with trial.pool(access_policy=policy) as pool:
            assert not pool.closed, "the doors of a closed pool say nothing of access"
            try:
                pool.register_detector(FORBIDDEN, lambda: ran.append(role), roles=(role,))
                error = pool.execute_detector(FORBIDDEN).error
            except AccessDenied as denial:
                error = denial
        held = isinstance(error, AccessDenied) and not ran
        assert len(ran) <= 1, "it was asked for once"
        named = type(policy).__name__ if policy is not None else "no policy at all"
        outcome = "was denied" if held else "RAN" if ran else f"gave {type(error).__name__}"
        return Observation(
            held, f"under the live pool's policy ({named}) a call for a role that nobody holds {outcome}"
        )


def _registration_denied(pool: EnterpriseDetectorPool) -> bool:
    assert not pool.closed, "the doors of a closed pool say nothing of access"
    try:
        pool.register_detector("trial-unregistered", len)
    except AccessDenied:
        return True
    return False
