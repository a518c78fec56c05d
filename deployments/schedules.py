"""
`prefect.yaml` applied to a Prefect server: the work pool, and each deployment that differs from what the server has.

What is the same is left alone, since registering a deployment anew throws its scheduled runs away. What is applied is
what `prefect deploy --all` would apply.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from detectors.errors import DetectorPoolError, UsageError, told

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.responses import DeploymentResponse
    from prefect.flows import Flow

__all__ = ["Applied", "Declared", "ServerRefused", "apply", "declaration_file", "declared", "server_address"]

Did = Literal["created", "updated", "unchanged"]
POOL_TYPE = "process"
POOL_LIMIT = 2
"""Runs of a new pool at once; each uses the processors that its own parameters allow."""
MAX_FILE_BYTES = 1 << 20


class Schedule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """When a deployment runs by itself."""

    cron: str
    timezone: str
    slug: str
    """Its name: a schedule that is changed keeps it."""
    active: bool = True
    parameters: dict[str, Any] = {}


class Limit(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How many runs of a deployment go on at once, and what happens to one too many."""

    limit: int
    collision_strategy: Literal["ENQUEUE", "CANCEL_NEW"]


class WorkPool(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where runs wait for a worker."""

    name: str
    job_variables: dict[str, Any] = {}


class Declared(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One deployment as the file has it."""

    name: str
    version: str
    description: str
    entrypoint: str
    """`module.function`: of the package that workers have installed."""
    parameters: dict[str, Any]
    concurrency_limit: Limit
    work_pool: WorkPool
    schedules: tuple[Schedule, ...] = ()
    tags: tuple[str, ...] = ()


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"prefect_version": "prefect-version"}):
    name: str
    prefect_version: str
    deployments: tuple[Declared, ...]
    pull: tuple[Any, ...] = ()
    definitions: Any = None
    """What deployments share; YAML's references have put it where it belongs."""


class Applied(msgspec.Struct, frozen=True):
    """What was done for a work pool or a deployment."""

    kind: Literal["work pool", "deployment"]
    name: str
    did: Did
    changed: tuple[str, ...] = ()
    """What was not as the file has it."""


@told
class ServerRefused(DetectorPoolError):
    """The Prefect server gave no answer, or refused."""

    url: str
    seen: str
    message = (
        "the Prefect server {url} did not do it: {seen}; PREFECT_API_URL, PREFECT_API_AUTH_STRING and "
        "PREFECT_API_SSL_CERT_FILE say where it is, who asks, and whose certificate is trusted"
    )


def declaration_file() -> Path:
    """Return the `prefect.yaml` of this release: of the installed package, or of the checkout."""
    installed = Path(str(resources.files("deployments") / "prefect.yaml"))
    found = installed if installed.is_file() else Path(__file__).parents[1] / "prefect.yaml"
    assert found.is_file(), "a release has its deployments"
    return found


def declared(file: Path, names: Sequence[str] = ()) -> tuple[Declared, ...]:
    """
    Read deployments.

    Args:
        file: In the form of `prefect.yaml`.
        names: Those that are wanted; all when empty.

    Raises:
        UsageError: It cannot be read, says what is not known here, or lacks a name.
    """
    try:
        with file.open("rb") as opened:
            data = opened.read(MAX_FILE_BYTES + 1)
        if len(data) > MAX_FILE_BYTES:
            raise UsageError(f"{file} is larger than {MAX_FILE_BYTES} bytes")
        found = msgspec.yaml.decode(data, type=_File).deployments
    except OSError as problem:
        raise UsageError(f"{file} cannot be read: {problem.strerror}") from problem
    except msgspec.DecodeError as problem:
        raise UsageError(f"{file} declares no deployments that are known here: {problem}") from problem
    known = {one.name: one for one in found}
    if len(known) != len(found):
        raise UsageError(f"{file} has two deployments of one name")
    if unknown := sorted(set(names) - known.keys()):
        raise UsageError(f"{file} has no deployment {', '.join(unknown)}; it has {', '.join(known)}")
    wanted = tuple(one for one in found if not names or one.name in names)
    assert wanted or not found, "a name that is known is found"
    return wanted


def server_address() -> str:
    """Return what `PREFECT_API_URL` says; raises UsageError where it says nothing."""
    url = os.environ.get("PREFECT_API_URL", "")
    if not url:
        raise UsageError("PREFECT_API_URL names the server that the deployments are for; it is not set")
    return url


def apply(wanted: Sequence[Declared], pool_limit: int | None = None) -> tuple[Applied, ...]:
    """
    Make the server that `PREFECT_API_URL` names have the deployments and their work pools.

    Args:
        wanted: What it shall have; what else it has is left alone.
        pool_limit: Runs at once in their pools; a new pool has 2, one that is there keeps its own, when absent.

    Raises:
        ServerRefused: It gave no answer, or refused.
        UsageError: There is no such flow, or it has no such parameter.
    """
    from prefect.client.orchestration import get_client

    if pool_limit is not None and pool_limit < 1:
        raise UsageError(f"a pool runs one at once at least, not {pool_limit}")
    done: list[Applied] = []
    with _reached(), get_client(sync_client=True) as client:
        for name in sorted({one.work_pool.name for one in wanted}):
            done.append(_apply_pool(client, name, pool_limit))
        done += [_apply_one(client, one) for one in wanted]
    assert len(done) >= len(wanted), "of each deployment is told what was done"
    return tuple(done)


def _apply_pool(client: SyncPrefectClient, name: str, limit: int | None) -> Applied:
    from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
    from prefect.exceptions import ObjectNotFound
    from prefect.workers.process import ProcessWorker

    assert limit is None or limit > 0, "a pool without runs runs nothing"
    try:
        pool = client.read_work_pool(name)
    except ObjectNotFound:
        template = ProcessWorker.get_default_base_job_template()
        made = WorkPoolCreate(
            name=name, type=POOL_TYPE, base_job_template=template, concurrency_limit=limit or POOL_LIMIT
        )
        client.create_work_pool(made)
        return Applied("work pool", name, "created")
    if pool.type != POOL_TYPE:
        raise UsageError(f"the work pool {name} is of type {pool.type}, not {POOL_TYPE}; name another in the file")
    if limit is None or pool.concurrency_limit == limit:
        return Applied("work pool", name, "unchanged")
    client.update_work_pool(name, WorkPoolUpdate(concurrency_limit=limit))
    return Applied("work pool", name, "updated", ("concurrency_limit",))


def _apply_one(client: SyncPrefectClient, one: Declared) -> Applied:
    from prefect.exceptions import ObjectNotFound

    flow = _flow(one)
    name = f"{flow.name}/{one.name}"
    wanted = _wanted(one, flow)
    try:
        before = _there(client.read_deployment_by_name(name))
    except ObjectNotFound:
        before = None
    if before == wanted:
        return Applied("deployment", name, "unchanged")
    _register(client, one, flow)
    after = client.read_deployment_by_name(name)
    slugs = {schedule.slug for schedule in one.schedules}
    for schedule in after.schedules:
        if schedule.slug not in slugs:  # Prefect keeps a schedule that was renamed beside its successor
            client.delete_deployment_schedule(after.id, schedule.id)
    left = _differences(_there(client.read_deployment_by_name(name)), wanted)
    if left:
        raise ServerRefused(str(client.api_url), f"{name} has other {', '.join(left)} than were registered")
    if before is None:
        return Applied("deployment", name, "created")
    return Applied("deployment", name, "updated", _differences(before, wanted))


def _register(client: SyncPrefectClient, one: Declared, flow: Flow[..., Any]) -> None:
    from prefect.client.schemas.actions import DeploymentScheduleCreate
    from prefect.client.schemas.objects import ConcurrencyLimitStrategy, ConcurrencyOptions
    from prefect.client.schemas.schedules import CronSchedule
    from prefect.utilities.callables import parameter_schema

    strategy = ConcurrencyLimitStrategy(one.concurrency_limit.collision_strategy)
    schedules = [
        DeploymentScheduleCreate(
            schedule=CronSchedule(cron=schedule.cron, timezone=schedule.timezone),
            active=schedule.active, slug=schedule.slug, parameters=schedule.parameters,
        )
        for schedule in one.schedules
    ]  # fmt: skip
    assert len({schedule.slug for schedule in one.schedules}) == len(schedules), "a schedule is known by its slug"
    client.create_deployment(
        client.create_flow_from_name(flow.name), one.name, version=one.version, schedules=schedules,
        concurrency_limit=one.concurrency_limit.limit,
        concurrency_options=ConcurrencyOptions(collision_strategy=strategy),
        parameters=one.parameters, description=one.description, work_pool_name=one.work_pool.name,
        job_variables=one.work_pool.job_variables, tags=list(one.tags), entrypoint=one.entrypoint, pull_steps=[],
        parameter_openapi_schema=parameter_schema(flow).model_dump(exclude_unset=True), enforce_parameter_schema=True,
    )  # fmt: skip


def _flow(one: Declared) -> Flow[..., Any]:
    from prefect.exceptions import PrefectException
    from prefect.flows import load_flow_from_entrypoint

    module, _, name = one.entrypoint.rpartition(".")
    if not module or ":" in one.entrypoint:
        raise UsageError(f"{one.name}: {one.entrypoint!r} is no module.function, and workers have no file")
    try:
        flow: Flow[..., Any] = load_flow_from_entrypoint(one.entrypoint, use_placeholder_flow=False)
    except (ImportError, AttributeError, PrefectException) as problem:
        raise UsageError(f"{one.name}: there is no flow {name} in {module}: {problem}") from problem
    given = set(one.parameters).union(*(schedule.parameters for schedule in one.schedules))
    if unknown := sorted(given - set(flow.parameters.properties)):
        raise UsageError(f"{one.name}: the flow {flow.name} has no parameter {', '.join(unknown)}")
    return flow


def _wanted(one: Declared, flow: Flow[..., Any]) -> Mapping[str, Any]:
    """Return what the server shall have, in the shape of `_there`."""
    from prefect.utilities.callables import parameter_schema

    return _plain(
        version=one.version, description=one.description, entrypoint=one.entrypoint, tags=sorted(one.tags),
        parameters=one.parameters, work_pool=one.work_pool.name, job_variables=one.work_pool.job_variables,
        schedules=_by_slug([s.slug, s.cron, s.timezone, s.active, s.parameters] for s in one.schedules),
        concurrency_limit=[one.concurrency_limit.limit, one.concurrency_limit.collision_strategy], pull=[],
        form=parameter_schema(flow).model_dump(exclude_unset=True), enforced=True,
    )  # fmt: skip


def _there(found: DeploymentResponse) -> Mapping[str, Any]:
    """Return what the server has."""
    limit, options = found.global_concurrency_limit, found.concurrency_options
    strategy = None if options is None else options.collision_strategy.value
    schedules = _by_slug(
        [s.slug or "", getattr(s.schedule, "cron", ""), getattr(s.schedule, "timezone", ""), s.active, s.parameters]
        for s in found.schedules
    )
    assert found.name, "a deployment has a name"
    return _plain(
        version=found.version, description=found.description, entrypoint=found.entrypoint, tags=sorted(found.tags),
        parameters=found.parameters, work_pool=found.work_pool_name, job_variables=found.job_variables,
        schedules=schedules,
        concurrency_limit=[None if limit is None else limit.limit, strategy], pull=found.pull_steps or [],
        form=found.parameter_openapi_schema, enforced=found.enforce_parameter_schema,
    )  # fmt: skip


def _by_slug(rows: Iterable[list[Any]]) -> list[list[Any]]:
    return sorted(rows, key=lambda row: str(row[0]))


def _plain(**fields: Any) -> Mapping[str, Any]:
    """Return what comes back from JSON: what a server has been through it."""
    plain: Mapping[str, Any] = json.loads(json.dumps(fields))
    assert plain.keys() == fields.keys(), "names are text"
    return plain


def _differences(before: Mapping[str, Any], wanted: Mapping[str, Any]) -> tuple[str, ...]:
    assert before.keys() == wanted.keys(), "both have one shape"
    return tuple(name for name in wanted if before[name] != wanted[name])


@contextlib.contextmanager
def _reached() -> Iterator[None]:
    """Turn what Prefect's client raises into one error that says what to look at."""
    import httpx
    from prefect.exceptions import PrefectException

    url = server_address()
    try:
        yield
    except httpx.HTTPStatusError as problem:
        raise ServerRefused(url, f"it answered {problem.response.status_code}") from problem
    except (httpx.HTTPError, PrefectException, RuntimeError) as problem:
        raise ServerRefused(url, f"{type(problem).__name__}: {problem}") from problem
