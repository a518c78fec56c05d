"""Rule 3 in C: no dynamic memory after initialisation, over the whole tree."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from detectors.c_parsing import CFile, Function
from detectors.detector import FileRule, TreeRule, once
from detectors.model import Finding
from detectors.parsing import ParsedFile
from detectors.power_of_ten.c_vocabulary import C_LANGUAGES, DETECTOR, CallGraph, as_c
from detectors.rule_settings import RuleSettings

__all__ = ["CDynamicMemory", "CVariableLengthArray"]

OPERATORS = frozenset({"new", "delete"})
WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
SIZE_OF = re.compile(rb"\bsizeof\b\s*(?:\([^()]*\)|\w+)")
CONSTANT_MACRO = re.compile(rb"\b[A-Z][A-Z0-9_]*\s*\([^()]*\)")
ARRAY = re.compile(rb"(\w+)\s*(?:\[[^\[\]]*\]\s*)*\[\s*\Z")
NAME = re.compile(rb"(?<![\w.>])[A-Za-z_]\w*")


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
static void *getline(int n) { return 0; }
void *next(void) { return getline(1); }
""",
        """
#include <stdlib.h>
static void drop(char *p) { free(p); }  // expect: P10-R3-dynamic-memory
void bus_init(struct bus *b, char *p) { b->on_close = drop; drop(p); }
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
        graph = once(CallGraph, facts["c-calls"])
        assert len(graph.edges) == len(graph.nodes), "each function has its callees, if none"
        starting = _initialising(graph, self.settings)
        assert all(0 <= number < len(graph.nodes) for number in starting), "who initialises is of this tree"
        for number, (path, function) in enumerate(graph.nodes):
            if number in starting:
                continue
            for name, place in function.allocations:
                if name not in OPERATORS and not graph.is_allocator(path, name):
                    continue
                assert place.line >= 1, "lines count from 1"
                yield path, self.finding(place.region, f"{name} in {function.name}, which runs after initialisation")
        for path, file in graph.files.items():
            for name, place in file.loose:
                yield path, self.finding(place.region, f"{name} in a macro, which may be used after initialisation")


class CVariableLengthArray(FileRule):
    """
    An array whose length is known at run time only.

    Why: it takes from the stack what nobody bounded.
    Instead: an array of the largest length, and a check.
    Not found: a length that names no parameter or local variable of the function: macros, enumerations and constants
    of the file look alike; a length whose name is in capitals.
    Source: Holzmann, "The Power of Ten", IEEE Computer 39(6), 2006, rule 3.
    """

    id = "P10-R3-variable-length-array"
    level = "note"
    detector = DETECTOR
    languages = C_LANGUAGES
    examples = (
        """
#define LEN 4
enum { MOST = 3, key_bytes = 32 };
void f(int n, char p[n]) { char a[LEN + 1]; char b[sizeof(n)]; char c[] = {1}; char d[key_bytes]; p[n] = a[n]; }
#define STRIDE 16
void g(int i) { char t[256 / STRIDE]; t[(i * STRIDE)] = 0; }
""",
        "void f(int n)\n{\n    char v[n];  // expect: P10-R3-variable-length-array\n}\n",
    )

    def check(self, parsed: ParsedFile) -> Iterator[Finding]:
        """Yield each array in a function's body whose size is no constant expression."""
        unit = as_c(parsed)
        constant: dict[tuple[int, str], bool] = {}
        for node in unit.nodes("size"):
            owner = unit.function_at(node.start_byte)
            if owner is None:
                continue
            text = node.text or b""
            # By their case, constants: `(i * LIMIT)` reads like the declaration of a pointer.
            words = NAME.findall(CONSTANT_MACRO.sub(b"", SIZE_OF.sub(b"", text)))
            assert owner.body <= node.start_byte < owner.end, "an array of a function stands in its body"
            names = {name.decode() for name in words if not name.isupper()}
            if names.isdisjoint(unit.locals_of(owner)):
                continue
            before = ARRAY.search(unit.layout.code, max(node.start_byte - 200, 0), node.start_byte)
            if before is None or before[1].decode() not in unit.locals_of(owner):
                continue  # no array, but an assembler's operand
            if unit.dialect == "cpp":
                for name in names:
                    if (owner.body, name) not in constant:
                        constant[owner.body, name] = _is_constant(unit, owner, name)
                if all(constant[owner.body, name] for name in names):
                    continue
            message = f"the length {text[:40].decode('utf-8', 'replace')} is known at run time only"
            yield self.finding(unit.region(node.start_byte, node.end_byte), message)


def _is_constant(unit: CFile, owner: Function, name: str) -> bool:
    """Tell whether a local of C++ is declared `const`, which makes an array's length a constant there."""
    assert name, "what is looked for has a name"
    assert owner.start < owner.end, "a function has a text"
    pattern = rb"\bconst(?:expr)?\b[^;{}()]*\b" + name.encode() + rb"\s*[={]"
    return re.search(pattern, unit.layout.code[owner.start : owner.end]) is not None


def _initialising(graph: CallGraph, settings: RuleSettings) -> frozenset[int]:
    """Return the functions that initialise by name, and those that only such functions call."""
    callers: list[set[int]] = [set() for _ in graph.nodes]
    for number, callees in enumerate(graph.edges):
        for callee in callees:
            callers[callee].add(number)
    named = {number for number, (_, function) in enumerate(graph.nodes) if _initialises(function.name, settings)}
    # Assume that whatever has a caller is for initialisation only, and take back what is not, until nothing changes:
    # so helpers that call each other are judged by who calls them from outside.
    assert len(callers) == len(graph.edges), "whether it is called is known of each function"
    handed_on = {n for n, (path, function) in enumerate(graph.nodes) if function.name in graph.files[path].handed_on}
    starting = named | {number for number, who in enumerate(callers) if who and number not in handed_on}
    pending = [number for number in range(len(graph.nodes)) if number not in starting]
    while pending:  # p10: each function is taken back once at most
        number = pending.pop()
        for callee in graph.edges[number]:
            if callee in starting and callee not in named:
                starting.discard(callee)
                pending.append(callee)
    reached = _reached(graph, named)
    assert named <= starting, "who initialises by name is not taken back"
    return frozenset(starting & (named | reached))


def _reached(graph: CallGraph, roots: set[int]) -> set[int]:
    assert len(roots) <= len(graph.nodes), "roots are functions of the graph"
    reached: set[int] = set()
    pending = list(roots)
    while pending:  # p10: each function is reached once
        for callee in graph.edges[pending.pop()]:
            if callee not in reached:
                reached.add(callee)
                pending.append(callee)
    assert len(reached) <= len(graph.nodes), "each function is reached once"
    return reached


def _initialises(name: str, settings: RuleSettings) -> bool:
    if name in settings.initialisation_functions:
        return True
    lowered = name.lower()
    if not any(word.lower() in lowered for word in settings.initialisation_words):
        return False  # nearly all names, and cheap to tell
    words = {word.lower() for part in name.split("_") for word in WORD.findall(part)}
    return not words.isdisjoint(settings.initialisation_words)
