"""Rule 9 in C: pointers are few, shallow and visible."""

from __future__ import annotations

import bisect
import re
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from detectors.c_parsing import CFile
from detectors.detector import FileRule
from detectors.model import Finding
from detectors.parsing import ParsedFile
from detectors.power_of_ten.c_vocabulary import C_LANGUAGES, DETECTOR, as_c

if TYPE_CHECKING:
    from tree_sitter import Node

__all__ = ["CFunctionPointer", "CHiddenDereference", "CPointerDepth"]

MAX_CHAIN = 64
"""Levels of an expression or declarator that are followed."""
POINTER_TO_FUNCTION = re.compile(
    rb"\(\s*+(?:[A-Za-z_]\w*+\s++)?[*^]\s*+(?:const\s*+|volatile\s*+)*+([A-Za-z_]\w*+)?\s*+"
    rb"((?:\[[^\]]*+\]\s*+)*+|\((?:[^()]|\([^()]*+\))*+\)\s*+)\)\s*+\("
)
"""`(*f)(`, `(WINAPI *f)(`, `(*f[3])(` and `(*)(`."""
TYPE_BEFORE = re.compile(rb"(?:[A-Za-z_]\w*+|\*|>)\s*+\Z")
NOT_A_TYPE = frozenset(b"return case else do sizeof throw goto new delete".split())
LAST_WORD = re.compile(rb"([A-Za-z_]\w*+)\s*+\Z")
STARS = re.compile(rb"\*(?:\s*+(?:const|volatile|restrict|__restrict)\b)*+\s*+\*")
DOUBLE_STAR = re.compile(rb"\*(?=(?:\s*+(?:const|volatile|restrict|__restrict)\b)*+\s*+\*)")
DEREFERENCE = re.compile(rb"->|(?:\A|[=(,;{}!?:&|<>+/%~-]|\breturn)\s*+\*+\s*+\(?\s*+[A-Za-z_]\w*+")
MAIN = re.compile(rb"\bw?main\s*+\([^()]*+\Z")
ARGUMENTS = frozenset((b"argv", b"envp", b"environ"))


class CPointerDepth(FileRule):
    """
    More than one level of dereference in an expression or a declaration.

    Why: each level multiplies what a pointer may reach, so that neither people nor tools can follow the data.
    Instead: name the step in between (`next = a->next; next->value`), or hand over the structure itself.
    Reported: `**p`, `a->b->c`, `(*p)->x`, `*a->b`, and declarations such as `char **p`; the outermost expression once.
    `argv` of `main` is not reported. An index counts as a level on a member that the file declares as a pointer.
    Not found: levels that only the type of a member of another file tells, such as `a->b[0]` with a pointer `b`.
    Source: Holzmann, "The Power of Ten", IEEE Computer 39(6), 2006, rule 9.
    """

    id = "P10-R9-pointer-depth"
    detector = DETECTOR
    languages = C_LANGUAGES
    examples = (
        """
struct node { struct node *next; struct { int x; } in; int array[3]; int value; };
int main(int argc, char **argv)
{
    return argc > 1 ? argv[1][0] : 0;
}
int depth_one(struct node *n, int *p)
{
    use(sizeof(**argv));
    struct node here = *n;
    return n->value + n->in.x + n->array[1] + *p + here.next->value * (*p);
}
""",
        """
struct node { struct node *next; int *list; int value; };
int get(struct node *n) { return n->next->value; }     // expect: P10-R9-pointer-depth
int *take(int **p) { return *p; }                      // expect: P10-R9-pointer-depth
int both(struct node *n) { return *n->list; }          // expect: P10-R9-pointer-depth
int item(struct node *n) { return n->list[2]; }        // expect: P10-R9-pointer-depth
void set(struct node *n) { (*n->next).value = 1; }     // expect: P10-R9-pointer-depth
""",
    )

    def check(self, parsed: ParsedFile) -> Iterator[Finding]:
        """Yield each expression and each declarator of more than one level."""
        unit = as_c(parsed)
        pointers = _pointer_members(unit)
        end = 0
        for node, levels in _deep(unit.nodes("reached"), unit.nodes("indexed"), pointers):
            # The parts of what was reported are the same finding.
            if node.start_byte < end or _measured(unit.layout.code, node.start_byte):
                continue
            end = node.end_byte
            yield self.finding(unit.region(node.start_byte, end), f"{levels} levels of dereference in one expression")
        stars = [match.start() for match in DOUBLE_STAR.finditer(unit.layout.parsable)]
        for capture in ("declarator", "parameter", "member", "alias", "result") if stars else ():
            for node in _holding(unit.nodes(capture), stars):
                place = _doubly(unit, node)
                if place is not None:
                    yield self.finding(unit.region(*place), "a pointer to a pointer; hand over what it points to")


class CHiddenDereference(FileRule):
    """
    A dereference that a macro or a type name hides.

    Why: a reader who does not see that a pointer is followed does not ask whether it may be null.
    Instead: write the dereference where it happens; name the structure's type, not the pointer's.
    Not found: macros of headers that are not in the tree.
    Source: Holzmann, "The Power of Ten", IEEE Computer 39(6), 2006, rule 9.
    """

    id = "P10-R9-hidden-dereference"
    detector = DETECTOR
    languages = C_LANGUAGES
    examples = (
        """
#define LIMIT (4 * 8)
#define TEXT char *
#define SIZE(x) (sizeof(x) * 2)
typedef struct node { struct node *next; } node_t;
typedef unsigned long word_t;
node_t *first(node_t *n) { return n->next; }
""",
        """
#define VALUE(n) ((n)->value)   // expect: P10-R9-hidden-dereference
#define AT(p) (*(p))            // expect: P10-R9-hidden-dereference
typedef struct node *node_ref;  // expect: P10-R9-hidden-dereference
typedef char *text, letter;     // expect: P10-R9-hidden-dereference
""",
    )

    def check(self, parsed: ParsedFile) -> Iterator[Finding]:
        """Yield each macro whose body dereferences, and each typedef of a pointer."""
        unit = as_c(parsed)
        for macro in unit.layout.macros:
            if _dereferences(macro.code.strip(b" \t")):
                start = unit.source.find(macro.name.encode(), macro.start)
                region = unit.region(start, start + len(macro.name))
                yield self.finding(region, f"the macro {macro.name} hides a dereference")
        for node in unit.nodes("alias"):
            if node.type == "pointer_declarator" and b"(" not in (node.text or b""):
                name = LAST_WORD.search(node.text or b"")
                shown = name[1].decode("utf-8", "replace") if name is not None else "a type name"
                yield self.finding(unit.region(node.start_byte, node.end_byte), f"{shown} hides that it is a pointer")


class CFunctionPointer(FileRule):
    """
    A pointer to a function.

    Why: which code a call reaches cannot be told by looking, so neither recursion nor stack use can be proved.
    Instead: a `switch` over the cases that there are.
    Reported: each declaration: variable, parameter, member, typedef, and casts to one.
    Not found: functions handed to a library as an argument; types of other headers that are function pointers.
    Source: Holzmann, "The Power of Ten", IEEE Computer 39(6), 2006, rule 9.
    """

    id = "P10-R9-function-pointer"
    detector = DETECTOR
    languages = C_LANGUAGES
    examples = (
        """
int f(int a) { return (a) * (a); }
int g(int *p) { return (*p) * (2); }
int h(int a) { return sizeof(int *) * (a); }
""",
        """
typedef int (*handler)(int);              // expect: P10-R9-function-pointer
struct ops { void (*run)(void); };        // expect: P10-R9-function-pointer
void each(int (*visit)(int), int n);      // expect: P10-R9-function-pointer
static int (*table[3])(void);             // expect: P10-R9-function-pointer
void *cast(long x) { return ((void *(*)(int)) x)(1); }  // expect: P10-R9-function-pointer
""",
    )

    def check(self, parsed: ParsedFile) -> Iterator[Finding]:
        """Yield each, at its name where it has one."""
        unit = as_c(parsed)
        code = unit.layout.code
        for match in POINTER_TO_FUNCTION.finditer(code):
            before = code[max(match.start() - 80, 0) : match.start()].rstrip()
            if TYPE_BEFORE.search(before) is None:
                continue
            word = LAST_WORD.search(before)
            if word is not None and word[1] in NOT_A_TYPE:
                continue
            if match[1] and _is_called(match, before, unit):
                continue
            start, end = match.span(1) if match[1] else (match.start(), match.end() - 1)
            yield self.finding(unit.region(start, end), "a pointer to a function; which code runs cannot be told")


def _is_called(match: re.Match[bytes], before: bytes, unit: CFile) -> bool:
    """Tell whether `f (*p)(x)` or `a * (*p)(x)` is an expression: in a body, what is declared there has a type."""
    if unit.function_at(match.start()) is None:
        return False
    statement = re.split(rb"[;{}]", before)[-1]
    return b"=" in statement or b"(" in statement or not statement.strip()


def _measured(code: bytes, start: int) -> bool:
    """Tell whether only the size of what stands at `start` is asked for."""
    return code[max(start - 12, 0) : start].rstrip(b" (").endswith(b"sizeof")


def _dereferences(code: bytes) -> bool:
    """Tell whether a macro's body follows a pointer; the declaration of a pointer to a function does not."""
    for match in DEREFERENCE.finditer(code):
        declared = POINTER_TO_FUNCTION.match(code, match.start())
        if declared is not None and TYPE_BEFORE.search(code[: match.start()][-80:]) is not None:
            continue
        if not _measured(code, match.start() + 1):
            return True
    return False


def _deep(reached: Sequence[Node], indexed: Sequence[Node], pointers: frozenset[bytes]) -> Iterator[tuple[Node, int]]:
    """Yield expressions of two levels or more, the outermost before its parts."""
    found = []
    for node in (*reached, *indexed):
        levels = _levels(node, pointers)
        if levels > 1:
            found.append((node, levels))
    yield from sorted(found, key=lambda item: (item[0].start_byte, -item[0].end_byte))


def _levels(node: Node, pointers: frozenset[bytes]) -> int:
    levels = 0
    current: Node | None = node
    for _ in range(MAX_CHAIN):
        if current is None:
            break
        kind = current.type
        if kind == "pointer_expression":
            if _operator(current) != "*":
                levels -= 1  # `&x->y` takes back what `*` adds
            else:
                levels += 1
            current = current.child_by_field_name("argument")
        elif kind == "field_expression":
            levels += _operator(current) == "->"
            current = current.child_by_field_name("argument")
        elif kind == "subscript_expression":
            inner = current.child_by_field_name("argument")
            if inner is not None and inner.type == "field_expression":
                member = inner.child_by_field_name("field")
                levels += member is not None and member.text in pointers
            current = inner
        elif kind == "parenthesized_expression":
            current = current.named_child(0)
        elif kind == "cast_expression":
            current = current.child_by_field_name("value")
        elif kind == "update_expression":
            current = current.child_by_field_name("argument")
        else:
            break
    return levels


def _operator(node: Node) -> str:
    operator = node.child_by_field_name("operator")
    return operator.type if operator is not None else ""


def _pointer_members(unit: CFile) -> frozenset[bytes]:
    """Return the names of members that the file's structures declare as pointers, and never otherwise."""
    pointers: set[bytes] = set()
    others: set[bytes] = set()
    for node in unit.nodes("member"):
        text = node.text or b""
        name = re.search(rb"([A-Za-z_]\w*+)", text)
        if name is not None:
            (pointers if node.type == "pointer_declarator" and b"[" not in text else others).add(name[1])
    return frozenset(pointers - others)


def _holding(nodes: Sequence[Node], offsets: Sequence[int]) -> Iterator[Node]:
    """Yield the nodes that hold one of the sorted offsets."""
    for node in nodes:
        start, end = node.byte_range
        place = bisect.bisect_left(offsets, start)
        if place < len(offsets) and offsets[place] < end:
            yield node


def _doubly(unit: CFile, node: Node) -> tuple[int, int] | None:
    """Return where a declarator of two levels stands; `None` if it has fewer or is `argv` of `main`."""
    text = node.text or b""
    if text.count(b"*") < 2:
        return None
    head = re.split(rb"[=({]", text)[0]
    if STARS.search(head) is None:
        return None
    name = re.search(rb"([A-Za-z_]\w*+)\s*+(?:\[[^\]]*+\]\s*+)*+\Z", head)
    if name is not None and name[1] in ARGUMENTS and node.type == "pointer_declarator":
        before = unit.layout.code[max(node.start_byte - 200, 0) : node.start_byte]
        if MAIN.search(before):
            return None
    return node.start_byte, node.start_byte + len(head.rstrip())
