"""
How a flow run ends when it does not finish: at its time limit, cancelled, or with its process killed.

What ends in the run's own process says so itself (`compliance.unfinished_runs.Mark`, `compliance.run_trail`). A process
that was ended from outside cannot: then Prefect's worker runs the hooks below, in a process of their own.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compliance.errors import EvidenceError
from compliance.identity import state_folder
from compliance.run_trail import own_ledger, record_flow_end
from compliance.signing import SigningKey
from compliance.unfinished_runs import Outcome, UnfinishedRun, read, rewrite, unfinished_runs
from detectors.errors import DetectorPoolError

if TYPE_CHECKING:
    from prefect.client.schemas.objects import FlowRun, State
    from prefect.flows import Flow

__all__ = ["RunTimedOut", "limited", "record_cancellation", "record_crash", "taken_passphrase", "this_run"]


class RunTimedOut(DetectorPoolError, TimeoutError):
    """A run reached its time limit and was ended; Prefect calls its state TimedOut, since it is a TimeoutError."""

    exit_code = 1


@contextlib.contextmanager
def limited(limit_s: float | None) -> Iterator[None]:
    """
    End the block after `limit_s` seconds; in the main thread this interrupts whatever it waits for.

    Raises:
        RunTimedOut: The limit was reached.
    """
    from prefect.utilities.timeout import timeout

    assert limit_s is None or limit_s > 0, "as the flow's parameter has it"
    try:
        with timeout(limit_s):
            yield
    except TimeoutError as problem:
        if isinstance(problem, DetectorPoolError) or limit_s is None:
            raise
        raise RunTimedOut(f"the run was ended after its time limit of {limit_s:g} s (parameter time_limit_s)") from None


def this_run() -> tuple[str, str]:
    """Return Prefect's id of the flow run that goes on, and its `flow/deployment`; empty where it has none."""
    from prefect.context import FlowRunContext
    from prefect.runtime import deployment

    context = FlowRunContext.get()
    run = None if context is None else context.flow_run
    if run is None or context is None or context.flow is None:
        return "", ""
    name = f"{context.flow.name}/{deployment.name}" if run.deployment_id is not None else ""
    assert run.id, "Prefect's runs have ids"
    return str(run.id), name


def taken_passphrase() -> bytes | None:
    """Return the passphrase in a worker's environment, and take it out of it, so that no tool inherits it."""
    text = os.environ.pop("DETECTOR_POOL_PASSPHRASE", None)
    return os.fsencode(text) if text else None


def record_cancellation(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """Hook: state that the run was cancelled; its process has ended."""
    assert flow.name, "a flow has a name"
    _record(flow_run, "cancelled", state.message or "cancelled")


def record_crash(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """Hook: state that the run's process died."""
    assert flow.name, "a flow has a name"
    _record(flow_run, "crashed", state.message or "its process died")


def _record(flow_run: FlowRun, outcome: Outcome, reason: str) -> None:
    """Write the statement anew and put the end into the ledger; each also where the other cannot be done."""
    passphrase = taken_passphrase()
    problems: list[DetectorPoolError] = []
    found = _statement_of(flow_run)
    if found is not None:
        file, said = found
        keys = flow_run.parameters.get("keys")
        try:
            key = SigningKey.load_or_create(Path(keys) if keys else state_folder() / "keys", passphrase)
            rewrite(file, said, outcome, reason, key)
        except EvidenceError as problem:
            problems.append(problem)
    if passphrase is not None:
        try:
            run_id = found[1].run_id if found is not None else ""
            record_flow_end(own_ledger(state_folder(), passphrase), str(flow_run.id), run_id, outcome, reason)
        except EvidenceError as problem:
            problems.append(problem)
    if problems:
        raise problems[0]  # Prefect writes it to the run's log


def _statement_of(flow_run: FlowRun) -> tuple[Path, UnfinishedRun] | None:
    """Return the statement that a flow run left, if it did."""
    evidence = flow_run.parameters.get("evidence")
    if not evidence:
        return None
    for file in unfinished_runs(Path(evidence).absolute().parent):
        try:
            said = read(file)
        except EvidenceError:
            continue  # somebody else's, or damaged: an audit tells of it
        if said.flow_run == str(flow_run.id):
            return file, said
    return None
