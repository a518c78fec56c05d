"""Rule 1 in Python: no recursion, over the whole tree."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from detectors.detector import TreeRule, once
from detectors.model import Finding, Related
from detectors.power_of_ten.cycles import cycles
from detectors.power_of_ten.python_vocabulary import DETECTOR, PYTHON, PythonCallGraph

__all__ = ["PythonRecursion"]

SHOWN = 20


class PythonRecursion(TreeRule):
    """
    A function that calls itself, directly or through functions of the tree's modules.

    Why: Python bounds recursion by an exception only; a loop's bound can be seen.
    Instead: a loop, and a list as a stack where one is needed.
    Not found: calls through other objects than `self`, `cls` and what is made on the spot; through names computed at
    run time; of properties and operators; of a method that a subclass puts in the place of the one called.
    Source: Holzmann, "The Power of Ten", IEEE Computer 39(6), 2006, rule 1, read across to Python.
    """

    id = "P10-R1-python-recursion"
    detector = DETECTOR
    languages = PYTHON
    needs = ("python-calls",)
    examples = (
        """
class A:
    def get(self, n):
        return n

class B(A):
    def get(self, n):
        return super().get(n)

    def other(self, thing):
        return thing.other(self)

def get(n):
    return A().get(n)

def shadow(shadow):
    return shadow(1)

def outer():
    def inner():
        return 1
    return inner()

def later(timer):
    timer.start(lambda: later(timer))

class Lazy:
    def value(self):
        self.value = make()
        return self.value()
""",
        """
def down(n):  # expect: P10-R1-python-recursion
    return down(n - 1) if n else 0

class Tree:
    def walk(self):  # expect: P10-R1-python-recursion
        return [child for child in self.children()]

    def children(self):  # expect: P10-R1-python-recursion
        return self.walk()

def outer(n):
    def inner(m):  # expect: P10-R1-python-recursion
        return inner(m - 1)
    return inner(n)

def count(items):  # expect: P10-R1-python-recursion
    return sum(map(count, items))

power = lambda n: n and 2 * power(n - 1)  # expect: P10-R1-python-recursion
""",
        """
# file: pkg/a.py
from .b import pong as back
from pkg import c
def ping(n):  # expect: P10-R1-python-recursion
    return back(n - 1)
def fine(n):
    return c.fine(n)
# file: pkg/b.py
import pkg.a
def pong(n):  # expect: P10-R1-python-recursion
    return pkg.a.ping(n)
# file: pkg/c.py
def fine(n):
    return n
""",
        """
# file: pkg/__init__.py
from .base import Base
# file: pkg/base.py
class Base:
    def run(self):  # expect: P10-R1-python-recursion
        from .tool import start
        return start()
# file: pkg/tool.py
from . import Base
class Tool(Base):
    pass
def start():  # expect: P10-R1-python-recursion
    return Tool().run()
""",
    )

    def check_tree(self, facts: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, Finding]]:
        """Yield each function of each cycle."""
        graph = once(PythonCallGraph, facts["python-calls"])
        assert len(graph.nodes) == len(graph.edges), "each function has its calls"
        for cycle in cycles(graph.edges):
            for number in cycle:
                path, name, region = graph.nodes[number]
                others = tuple(
                    Related(
                        graph.nodes[n][0], graph.nodes[n][2].start_line, f"{graph.nodes[n][1]} is in the same cycle"
                    )
                    for n in cycle
                    if n != number
                )
                assert others or number in graph.edges[number], "a cycle of one calls itself"
                through = f" through {others[0].message.split()[0]}" if others else ""
                message = f"{name} is recursive{through}; use a loop with a bound"
                yield path, self.finding(region, message, related=others[:SHOWN])
