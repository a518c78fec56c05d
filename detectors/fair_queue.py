"""
Who goes next among classes of work: start-time fair queueing, a pure state machine of tags.

Each class has a weight. Work of length `l` (predicted seconds) gets the start tag `S = max(v, F)` and moves its class's
finish tag to `F = S + l / w`; the class with the lowest start tag goes next, and the virtual time `v` becomes that tag.

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

Work that may not go yet (a limit of its class or of its caller) counts as not there: its class must `arrive` anew when
it may, or it would be owed what it could not take. What an extra worker takes out of turn moves its class's tag and not
the virtual time, so that nobody else waits longer for it.

Source: Goyal, Vin and Cheng, "Start-time fair queueing", IEEE/ACM Transactions on Networking 5(5), 1997.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Hashable, Iterable
from typing import Generic, TypeVar

import msgspec

from detectors.errors import UsageError

__all__ = ["FairQueue"]

Name = TypeVar("Name", bound=Hashable)


class _Class(msgspec.Struct, eq=False):
    weight: float
    tag: float = 0.0
    last_s: float = 0.0
    longest_s: float = 0.0


@dataclasses.dataclass(eq=False)
class FairQueue(Generic[Name]):
    """
    The tags of classes that share in proportion to their weights. Not thread-safe: its owner locks, and keeps the work.
    """

    _classes: dict[Name, _Class] = dataclasses.field(default_factory=dict, init=False)
    _virtual_time: float = dataclasses.field(default=0.0, init=False)

    def weigh(self, name: Name, weight: float) -> None:
        """
        Make a class known, or change its weight for work that is not yet handed out.

        Raises:
            UsageError: A weight that is not above 0 (the class would starve), or not finite (all others would).
        """
        if not 0 < weight < math.inf:
            raise UsageError(f"the weight of class {name!r} must be above 0 and finite, not {weight}")
        if name in self._classes:
            self._classes[name].weight = weight
        else:
            self._classes[name] = _Class(weight)

    def arrive(self, name: Name) -> None:
        """Tell that a known class, of which nothing waited, has work again: it saved up no claim, and owes none."""
        assert name in self._classes, "a class is weighed before it has work"
        mine = self._classes[name]
        assert math.isfinite(mine.tag), "who is owed without end would never go again"
        mine.tag = max(mine.tag, self._virtual_time)

    def tag(self, name: Name) -> float:
        """Return the start tag of a known class's head: the lowest goes next."""
        assert name in self._classes, "a class is weighed before it has work"
        return self._classes[name].tag

    def next(self, names: Iterable[Name]) -> Name:
        """
        Return which of these classes, all with work waiting, goes next; among equal tags the heavier, then the first.

        Raises:
            ValueError: There is none.
        """
        return min(names, key=lambda name: (self._classes[name].tag, -self._classes[name].weight))

    def hand_out(self, name: Name, length_s: float, *, in_turn: bool = True) -> None:
        """
        Account for work of a class that goes now.

        Args:
            name: A known class.
            length_s: Predicted seconds, at least 0.
            in_turn: Whether its tag was the lowest; otherwise a worker took it that would not have taken another's.
        """
        assert 0 <= length_s < math.inf, "work takes time, and ends"
        assert name in self._classes, "a class is weighed before it has work"
        mine = self._classes[name]
        assert mine.weight > 0, "a class without weight was refused"
        if in_turn:
            self._virtual_time = max(self._virtual_time, mine.tag)
        mine.tag += length_s / mine.weight
        mine.last_s = length_s
        mine.longest_s = max(mine.longest_s, length_s)
        assert mine.last_s <= mine.longest_s, "the bound takes the longest"

    def bound_s(self, name: Name, workers: int) -> float:
        """
        Return the longest wait, from now, of the head of a class that just became it; see the module's proof.

        Counts every class that was ever handed out work, since an idle one may come back.

        Args:
            name: A known class.
            workers: That share the work, at least 1.
        """
        assert workers >= 1, "somebody works"
        assert name in self._classes, "a class is weighed before it has work"
        mine = self._classes[name]
        others = sum(
            other.weight / mine.weight * mine.last_s + other.longest_s
            for key, other in self._classes.items()
            if key != name
        )
        longest_s = max(one.longest_s for one in self._classes.values())
        assert longest_s >= mine.longest_s, "its own work is among the longest"
        assert others >= 0, "nobody gives time back"
        return longest_s + others / workers
