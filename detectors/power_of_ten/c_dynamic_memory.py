"""Rule 3 in C: no dynamic memory after initialisation, over the whole tree."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from detectors.detector import FileRule, TreeRule
from detectors.model import Finding
from detectors.parsing import ParsedFile
from detectors.power_of_ten.c_vocabulary import C_LANGUAGES, DETECTOR, CallGraph, as_c

__all__ = ["CDynamicMemory", "CVariableLengthArray"]

INITIALISES = frozenset({"init", "initialise", "initialize", "setup"})
WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
CONSTANT = re.compile(r"[A-Z0-9_\s+*/()<>|&~^%?:-]*|.*sizeof.*", re.DOTALL)


class CDynamicMemory(TreeRule):
    """
    `malloc`, `free` and their kin outside of initialisation.

    Why: allocators fail, fragment and take their time, all at run time.
    Instead: allocate once while starting up, or take from a pool of fixed size.
    Not found: allocators of one's own; calls through pointers. A function initialises when a whole word of its name is
    init, initialise, initialize or setup; so does what only such functions call.
    Source: Holzmann, "The Power of Ten", IEEE Computer 39(6), 2006, rule 3.
    """

    id = "P10-R3-dynamic-memory"
    detector = DETECTOR
    languages = C_LANGUAGES
    needs = ("c-calls",)
    examples = (
        """
#include <stdlib.h>
static char *make(int n) { return malloc(n); }
static char *buffer;
void radio_init(void) { buffer = make(64); }
void setupRadio(void) { free(buffer); }
struct pool { void (*free)(void *); };
void give(struct pool *p, void *x) { p->free(x); }
int malloc_count;
""",
        """
#include <stdlib.h>
#define GET(n) malloc(n)  // expect: P10-R3-dynamic-memory
char *take(int n) { return malloc(n); }  // expect: P10-R3-dynamic-memory
void initial(char *p) { free(p); }  // expect: P10-R3-dynamic-memory
void start_init(void) { take(3); }
void run(void) { take(4); }
""",
        """
// file: a.cpp
struct P { int x; };
P *make() { return new P; }  // expect: P10-R3-dynamic-memory
void drop(P *p) { delete p; }  // expect: P10-R3-dynamic-memory
""",
    )

    def check_tree(self, facts: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, Finding]]:
        """Yield each allocation in a function that runs after initialisation."""
        graph = CallGraph(facts["c-calls"])
        starting = _initialising(graph)
        for number, (path, function) in enumerate(graph.nodes):
            if number in starting:
                continue
            for name, place in function.allocations:
                yield path, self.finding(place.region, f"{name} in {function.name}, which runs after initialisation")
        for path, file in graph.files.items():
            for name, place in file.loose:
                yield path, self.finding(place.region, f"{name} in a macro, which may be used after initialisation")


class CVariableLengthArray(FileRule):
    """
    An array whose length is known at run time only.

    Why: it takes from the stack what nobody bounded.
    Instead: an array of the largest length, and a check.
    Not found: lengths that a macro or an enumeration in small letters hides are taken for variables.
    Source: Holzmann, "The Power of Ten", IEEE Computer 39(6), 2006, rule 3.
    """

    id = "P10-R3-variable-length-array"
    level = "note"
    detector = DETECTOR
    languages = C_LANGUAGES
    examples = (
        """
#define LEN 4
enum { MOST = 3 };
void f(int n, char p[n]) { char a[LEN + 1]; char b[sizeof(int)]; char c[] = {1}; }
""",
        "void f(int n)\n{\n    char v[n];  // expect: P10-R3-variable-length-array\n}\n",
    )

    def check(self, parsed: ParsedFile) -> Iterator[Finding]:
        """Yield each array in a function's body whose size is no constant expression."""
        unit = as_c(parsed)
        for node in unit.nodes("size"):
            text = (node.text or b"").decode("utf-8", "replace")
            if CONSTANT.fullmatch(text) or unit.function_at(node.start_byte) is None:
                continue
            message = f"the length {text[:40]} is known at run time only"
            yield self.finding(unit.region(node.start_byte, node.end_byte), message)


def _initialising(graph: CallGraph) -> frozenset[int]:
    """Return the functions that initialise by name, and those that only such functions call."""
    callers: list[set[int]] = [set() for _ in graph.nodes]
    for number, callees in enumerate(graph.edges):
        for callee in callees:
            callers[callee].add(number)
    named = {number for number, (_, function) in enumerate(graph.nodes) if _initialises(function.name)}
    # Assume that whatever has a caller is for initialisation only, and take back what is not, until nothing changes:
    # so helpers that call each other are judged by who calls them from outside.
    starting = named | {number for number, who in enumerate(callers) if who}
    pending = [number for number in range(len(graph.nodes)) if number not in starting]
    while pending:  # p10: each function is taken back once at most
        number = pending.pop()
        for callee in graph.edges[number]:
            if callee in starting and callee not in named:
                starting.discard(callee)
                pending.append(callee)
    reached = _reached(graph, named)
    return frozenset(starting & (named | reached))


def _reached(graph: CallGraph, roots: set[int]) -> set[int]:
    reached: set[int] = set()
    pending = list(roots)
    while pending:  # p10: each function is reached once
        for callee in graph.edges[pending.pop()]:
            if callee not in reached:
                reached.add(callee)
                pending.append(callee)
    return reached


def _initialises(name: str) -> bool:
    return any(word.lower() in INITIALISES for part in name.split("_") for word in WORD.findall(part))
