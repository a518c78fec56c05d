"""
What is known of a detector of the pool: its function, how it may fail, where it runs. Checked once, at the door.
"""

from __future__ import annotations

import hashlib
import math
import types
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

import msgspec

from detectors.circuit_breaker import BreakerPolicy
from detectors.content_key import Unkeyable, content_key
from detectors.errors import ConfigurationError, NotTransferable, UsageError
from detectors.retries import RetryPolicy

__all__ = ["BreakerPolicy", "Isolation", "Registration", "RetryPolicy", "registration"]

Isolation = Literal["thread", "process", "dask"]
"""
Where a detector runs: in a thread of this process, in a warm process of its own, or on a worker of a Dask cluster.

Only `process` contains crashes and ends work after `timeout_s`: a thread cannot be ended from outside, so `thread`
takes no `timeout_s`, and `dask` runs a detector that has one in a process of its own beside the Dask worker.
"""

MEMORY_BYTES = 4 << 30
IDENTITY_BYTES = 32


class Registration(msgspec.Struct, frozen=True):
    """One detector as the pool knows it."""

    name: str
    function: Callable[..., Any]
    config: Mapping[str, Any]
    """Keyword arguments of every execution that gives none of its own."""
    priority: int
    complexity_score: float
    roles: frozenset[str]
    isolation: Isolation
    timeout_s: float | None
    memory_bytes: int
    retry: RetryPolicy
    breaker: BreakerPolicy | None
    cacheable: bool
    path_in_key: bool
    max_concurrent: int | None
    identity: bytes
    """32 bytes that tell this function and configuration from others in the memory of this pool."""
    stored_identity: bytes | None
    """32 bytes that hold across processes; `None`: results stay in memory."""
    transferable: bytes | None
    """The function, pickled by value where it must be; `None` for isolation in a thread."""
    corpus: tuple[tuple[tuple[Any, ...], Mapping[str, Any]], ...] = ()
    """(args, kwargs) of real work, each, on which it may be measured."""


def registration(  # p10: ignore[R10] what register_detector takes by the maintainers
    name: str,
    function: Callable[..., Any],
    config: Mapping[str, Any] | None,
    config_schema: Mapping[str, Any] | type | None,
    *,
    priority: int,
    complexity_score: float,
    roles: frozenset[str],
    isolation: Isolation,
    timeout_s: float | None,
    memory_bytes: int,
    retry: RetryPolicy,
    breaker: BreakerPolicy | None,
    cacheable: bool,
    path_in_key: bool,
    max_concurrent: int | None,
    version: str | None,
    corpus: Iterable[tuple[tuple[Any, ...], Mapping[str, Any]]] = (),
) -> Registration:
    """
    Check a registration and make it final; see `EnterpriseDetectorPool.register_detector` for the arguments.

    Raises:
        UsageError: An argument that makes no sense, or two that exclude each other.
        ConfigurationError: The configuration does not fit its schema.
        NotTransferable: The function cannot be sent to another process.
    """
    if not name or not isinstance(name, str) or not callable(function):
        raise UsageError("register_detector needs a name and a callable")
    if isolation not in {"thread", "process", "dask"}:
        raise UsageError(f"isolation of {name!r} is `thread`, `process` or `dask`, not {isolation!r}")
    if timeout_s is not None and not timeout_s > 0:
        raise UsageError(f"timeout_s of {name!r} must be above 0, not {timeout_s}")
    if timeout_s is not None and isolation == "thread":
        raise UsageError(
            f"a thread cannot be ended, so {name!r} with isolation='thread' can have no timeout_s; "
            "use isolation='process', which ends the work and all of its processes"
        )
    if priority < 1:
        raise UsageError(f"priority of {name!r} must be above 0, not {priority}")
    if not 0 < complexity_score < math.inf:
        raise UsageError(f"complexity_score of {name!r} is a number of seconds above 0, not {complexity_score}")
    if max_concurrent is not None and max_concurrent < 1:
        raise UsageError(f"max_concurrent of {name!r} must be at least 1, not {max_concurrent}")
    if memory_bytes < 1 << 20:
        raise UsageError(f"memory_bytes of {name!r} must be at least a megabyte, not {memory_bytes}")
    inputs = tuple(corpus)
    if not all(isinstance(one, tuple) and len(one) == 2 and isinstance(one[1], Mapping) for one in inputs):
        raise UsageError(f"the corpus of {name!r} is of (args, kwargs), each")
    checked = _configured(name, config or {}, config_schema)
    own = _stored_identity(function, checked, version) if version is not None else None
    assert own is None or len(own) == IDENTITY_BYTES, "it is a key over content"
    return Registration(
        name, function, checked, priority, complexity_score, frozenset(roles), isolation, timeout_s, memory_bytes,
        retry, breaker, cacheable, path_in_key, max_concurrent, _fresh_identity(name), own,
        _pickled(name, function) if isolation != "thread" else None, inputs,
    )  # fmt: skip


def _configured(name: str, config: Mapping[str, Any], schema: Mapping[str, Any] | type | None) -> dict[str, Any]:
    """Return the keyword arguments that the configuration stands for."""
    if schema is None:
        return dict(config)
    if not isinstance(schema, Mapping):
        try:
            converted: Any = msgspec.convert(config, schema)
        except (msgspec.ValidationError, TypeError) as problem:
            raise ConfigurationError(f"configuration of {name!r}: {problem}") from problem
        return dict(converted) if isinstance(converted, Mapping) else _fields(converted)
    import jsonschema
    import referencing

    validator = jsonschema.validators.validator_for(schema, default=jsonschema.Draft202012Validator)
    try:
        validator.check_schema(dict(schema))
        # An empty registry: a `$ref` to elsewhere must not be fetched.
        problems = sorted(validator(dict(schema), registry=referencing.Registry()).iter_errors(dict(config)), key=str)
    except jsonschema.SchemaError as problem:
        raise ConfigurationError(f"config_schema of {name!r} is no JSON Schema: {problem.message}") from problem
    except referencing.exceptions.Unresolvable as problem:
        raise ConfigurationError(f"config_schema of {name!r} refers to what it does not hold: {problem}") from problem
    if problems:
        told = "; ".join(f"{problem.json_path}: {problem.message}" for problem in problems[:3])
        raise ConfigurationError(f"configuration of {name!r}: {told}")
    return dict(config)


def _fields(value: Any) -> dict[str, Any]:
    if isinstance(value, msgspec.Struct):
        return msgspec.structs.asdict(value)
    if not hasattr(value, "__dataclass_fields__"):
        raise ConfigurationError(
            f"a config_schema that is a type must be a mapping, a struct or a dataclass: {value!r}"
        )
    return {field: getattr(value, field) for field in value.__dataclass_fields__}


def _pickled(name: str, function: Callable[..., Any]) -> bytes:
    import cloudpickle

    try:
        pickled: bytes = cloudpickle.dumps(function)
    except Exception as problem:  # what a function drags along may raise anything
        raise NotTransferable(name, "function", f"{type(problem).__name__}: {problem}") from problem
    return pickled


def _fresh_identity(name: str) -> bytes:
    """Return what no other registration has: a function given anew must not be answered with the old one's results."""
    import uuid

    return hashlib.sha256(name.encode("utf-8", "surrogatepass") + uuid.uuid4().bytes).digest()


def _stored_identity(function: Callable[..., Any], config: Mapping[str, Any], version: str) -> bytes | None:
    """Return a digest of version, code, defaults, closure and configuration; `None` where one cannot be keyed."""
    function = getattr(function, "__func__", function)
    if not isinstance(function, types.FunctionType):
        return None
    try:
        closure = tuple(cell.cell_contents for cell in function.__closure__ or ())
        held = (dict(config), function.__defaults__ or (), dict(function.__kwdefaults__ or {}), closure)
        named = (version, function.__module__, function.__qualname__, _code(function.__code__))
        return content_key((named, held))
    except (Unkeyable, ValueError):
        return None


def _code(code: types.CodeType) -> tuple[Any, ...]:
    """Return what a code object does, without line numbers and file names; inner functions by a list of their own."""
    parts: list[Any] = []
    waiting = [code]
    for current in waiting:  # grows by the inner functions, of which a source has finitely many
        waiting += [constant for constant in current.co_consts if isinstance(constant, types.CodeType)]
        constants = tuple(constant for constant in current.co_consts if not isinstance(constant, types.CodeType))
        parts.append((current.co_code, constants, current.co_names, current.co_varnames, current.co_flags))
    assert len(parts) == len(waiting), "each code object counts once"
    return tuple(parts)
