"""
What the engine asks from above, as small protocols, and how the one who fulfils them is found.

Nothing in `detectors` imports `compliance`, `flows` or `deployments`; they are reached through entry points.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import inspect
import pkgutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any, ClassVar, Protocol, runtime_checkable

from detectors.errors import DetectorBroken, UsageError

__all__ = ["ClusterKind", "Progress", "open_cluster"]

Progress = Callable[[str, int, int], None]
"""Called with (stage, units done, units in all) as work goes on; must return at once."""


@runtime_checkable
class ClusterKind(Protocol):
    """A way to get a Dask scheduler; `name` is what `--cluster` takes."""

    name: ClassVar[str]

    def open(self, target: str, workers: int) -> AbstractContextManager[Any]:
        """
        Bring a cluster up, or reach a running one; clean up at the end.

        Args:
            target: What `--cluster` was given: the kind's name, or a scheduler's address.
            workers: How many worker processes are wanted.

        Yields:
            A connected `distributed.Client`.

        Raises:
            ClusterError: It cannot be started or reached.
        """
        ...

    def accepts(self, target: str) -> bool:
        """Tell whether this kind serves `target`."""
        ...


def open_cluster(target: str, workers: int) -> AbstractContextManager[Any]:
    """
    Find the cluster kind for `target` among the entry points `detector_pool.clusters`, and open it.

    Raises:
        UsageError: No kind serves `target`.
    """
    kinds = [cls() for cls in _classes("detector_pool.clusters", ("accepts", "open"))]
    for kind in kinds:
        if kind.accepts(target):
            context: AbstractContextManager[Any] = kind.open(target, workers)
            return context
    names = ", ".join(sorted(kind.name for kind in kinds))
    raise UsageError(f"--cluster {target!r} is neither `inline`, nor one of: {names}, nor a scheduler's address")


def _classes(group: str, methods: tuple[str, ...]) -> Iterator[type[Any]]:
    for entry in importlib.metadata.entry_points(group=group):
        try:
            package = importlib.import_module(entry.module)
            found = [package] + [
                importlib.import_module(info.name)
                for info in pkgutil.iter_modules(getattr(package, "__path__", []), f"{package.__name__}.")
            ]
        except Exception as problem:  # a third party's module may raise anything; it must be named
            raise DetectorBroken(entry.value, f"{type(problem).__name__}: {problem}") from problem
        for module in found:
            for cls in vars(module).values():
                if (
                    inspect.isclass(cls)
                    and cls.__module__ == module.__name__
                    and all(callable(getattr(cls, method, None)) for method in methods)
                ):
                    yield cls
