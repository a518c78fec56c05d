"""
Which class of work goes next: start-time fair queueing, a pure state machine.

Each class has a weight. Work of length `l` (predicted seconds) gets the start tag `S = max(v, F)` and moves its class's
finish tag to `F = S + l / w`; the head with the lowest start tag goes next, and the virtual time `v` becomes that tag.

Bound. Let a class f have work waiting, from the moment t when that work became its head (it arrived at an idle class,
or the one before it was handed out). Until it is handed out, every other class m is handed out work of at most

    w_m / w_f * last_f + longest_m

where `last_f` is the length of what f was handed out last (0 if nothing) and `longest_m` the greatest length of m.
Proof. At t the head's start tag is at most `v + last_f / w_f`: its class's finish tag is the last start tag, which was
at most v, plus that. Work of m that goes before it has start tags between v and that; successive tags of m differ by
at least `l / w_m`, so all of it but the last piece sums to at most `w_m / w_f * last_f`, and the last is `longest_m`. ∎

In time: on K workers that always take the next head when free, and while none is idle, the head waits at most

    longest + (sum over m of (w_m / w_f * last_f + longest_m)) / K

since each of the K workers has at most one piece in hand at t, and after it does only what is counted above. Lengths
are predictions; where work takes at most `rho` times its prediction, the bound in real seconds is `rho` times this.

Source: Goyal, Vin and Cheng, "Start-time fair queueing", IEEE/ACM Transactions on Networking 5(5), 1997.
"""

from __future__ import annotations

import collections
import heapq
from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

from detectors.errors import UsageError

__all__ = ["FairQueue"]

Item = TypeVar("Item")


class _Class(Generic[Item]):
    def __init__(self, weight: float) -> None:
        self.weight = weight
        self.finish = 0.0
        self.waiting: collections.deque[tuple[Item, float]] = collections.deque()
        self.last_s = self.longest_s = 0.0


class FairQueue(Generic[Item]):
    """Work by class, handed out in proportion to the weights. Not thread-safe: its owner locks."""

    def __init__(self) -> None:
        self._classes: dict[Hashable, _Class[Item]] = {}
        self._heads: list[tuple[float, float, int, Hashable]] = []
        self._virtual_time = 0.0
        self._turn = 0

    def __len__(self) -> int:
        """Return how much is waiting."""
        return sum(len(one.waiting) for one in self._classes.values())

    def __iter__(self) -> Iterator[Item]:
        """Hand out all that is waiting, in order."""
        for _ in range(len(self)):
            yield self.pop()

    def add_class(self, name: Hashable, weight: float) -> None:
        """
        Make a class known, or change its weight for work that is not yet a head.

        Raises:
            UsageError: A weight that is not above 0: the class would starve.
        """
        if not weight > 0:
            raise UsageError(f"the weight of class {name!r} must be above 0, not {weight}")
        if name in self._classes:
            self._classes[name].weight = weight
        else:
            self._classes[name] = _Class(weight)

    def push(self, name: Hashable, item: Item, length_s: float) -> None:
        """
        Add work at the end of its class.

        Args:
            name: A known class.
            item: What is handed out.
            length_s: Predicted seconds, at least 0.
        """
        assert length_s >= 0, "work takes time"
        mine = self._classes[name]
        mine.waiting.append((item, length_s))
        mine.longest_s = max(mine.longest_s, length_s)
        if len(mine.waiting) == 1:
            self._tag(name, mine)

    def pop(self) -> Item:
        """
        Hand out the next piece.

        Raises:
            IndexError: Nothing is waiting.
        """
        start, _, _, name = heapq.heappop(self._heads)
        mine = self._classes[name]
        item, length_s = mine.waiting.popleft()
        self._virtual_time = start
        mine.finish = start + length_s / mine.weight
        mine.last_s = length_s
        if mine.waiting:
            self._tag(name, mine)
        return item

    def bound_s(self, name: Hashable, workers: int) -> float:
        """
        Return the longest wait, from now, of the head of a class that just became it; see the module's proof.

        Counts every class that has ever had work, since an idle one may come back.
        """
        mine = self._classes[name]
        others = sum(
            other.weight / mine.weight * mine.last_s + other.longest_s
            for key, other in self._classes.items()
            if key != name
        )
        longest_s = max(one.longest_s for one in self._classes.values())
        return longest_s + others / max(workers, 1)

    def _tag(self, name: Hashable, mine: _Class[Item]) -> None:
        start = max(self._virtual_time, mine.finish)
        self._turn += 1
        # Among equal tags the heavier class goes first, then whoever came first: the order never depends on names.
        heapq.heappush(self._heads, (start, -mine.weight, self._turn, name))
