"""Rule 1 in C: no recursion, over the whole tree."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from detectors.detector import TreeRule, once
from detectors.model import Finding, Related
from detectors.power_of_ten.c_vocabulary import C_LANGUAGES, DETECTOR, CallGraph
from detectors.power_of_ten.cycles import cycles

__all__ = ["CRecursion"]

SHOWN = 20


class CRecursion(TreeRule):
    """
    A function that calls itself, directly or through a cycle of the tree's calls.

    Why: without recursion the call graph is acyclic, and the use of the stack can be bounded.
    Instead: a loop with a bound, and a stack of its own where one is needed.
    Not found: cycles through function pointers, through functions outside of the tree, and through overloads of C++
    that only their types tell apart.
    Source: Holzmann, "The Power of Ten", IEEE Computer 39(6), 2006, rule 1.
    """

    id = "P10-R1-recursion"
    detector = DETECTOR
    languages = C_LANGUAGES
    needs = ("c-calls",)
    examples = (
        """
static int twice(int n) { return 2 * n; }
int four(int n) { return twice(twice(n)); }
int shadow(int (*shadow)(int)) { return shadow(1); }
struct ops { int (*call)(int); };
int call(struct ops *o) { return o->call(1); }
""",
        """
int down(int n)  // expect: P10-R1-recursion
{
    return n ? down(n - 1) : 0;
}
""",
        """
// file: a.c
int pong(int n);
int ping(int n) { return n ? pong(n - 1) : 0; }  // expect: P10-R1-recursion
static int same(int n) { return n; }
int a(int n) { return same(n); }
// file: b.c
#define CALL(f) f(n - 1)
#define AGAIN ping(n)
int pong(int n) { return AGAIN; }  // expect: P10-R1-recursion
int a(int n);
static int same(int n) { return a(n); }
int b(int n) { return same(n); }
""",
        """
#define TEST(name) void run_##name(void)
int kill(int n);
TEST(kill) { stop(1); }
int stop(int n) { return kill(n); }
""",
        """
#ifdef WIDE
long head(long n)
#else
int head(int n)
#endif
{
    return n;
}
int K(n) int n; { return n ? K(n - 1) : 0; }  // expect: P10-R1-recursion
""",
        """
// file: a.cpp
struct A { int get(int n) { return n; } };
int get(int n) { A a; return a.get(n); }
int over(int n) { return n; }
int over(int n, int m) { return over(n + m); }
""",
    )

    def check_tree(self, facts: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, Finding]]:
        """Yield each function of each cycle."""
        graph = once(CallGraph, facts["c-calls"])
        assert len(graph.edges) == len(graph.nodes), "each function has its callees, if none"
        for cycle in cycles(graph.edges):
            members = [graph.nodes[number] for number in cycle]
            for path, function in members:
                others = tuple(
                    Related(other_path, other.place.line, f"{other.name} is in the same cycle")
                    for other_path, other in members
                    if other is not function
                )
                assert len(others) == len(members) - 1, "a function is in its cycle once"
                through = f" through {others[0].message.split()[0]}" if others else ""
                message = f"{function.name} is recursive{through}; use a loop with a bound"
                yield path, self.finding(function.place.region, message, related=others[:SHOWN])
