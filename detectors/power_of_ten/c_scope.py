"""Rule 6 in C: objects are declared at the smallest scope that will do."""

from __future__ import annotations

import bisect
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec

from detectors.c_parsing import FIXED, MAX_SPECIFIERS, CFile, Function, Object
from detectors.detector import Facts, FileRule, TreeRule
from detectors.model import Finding
from detectors.parsing import ParsedFile
from detectors.power_of_ten.c_expressions import closing
from detectors.power_of_ten.c_vocabulary import C_LANGUAGES, DETECTOR, HEADERS, Place, as_c, place_of

__all__ = ["CExternalObject", "CFileScope", "CInnerScope", "CObjects"]

INITIAL = re.compile(
    rb"\s*+(?:\[[^\]]*+\]\s*+)*+=\s*+(-?\s*+[0-9][\w.]*+|[A-Z_][A-Z0-9_]*+|nullptr|true|false|\{\s*+0?\s*+\})\s*+[,;]"
)
"""A declaration's value that is the same wherever it stands."""
INITIALISED = re.compile(rb"\s*+(?:\[[^\]]*+\]\s*+)*+[=({]")
PLAIN_TYPES = re.compile(
    rb"\b(?:bool|char|double|float|int|long|short|signed|unsigned|ssize_t|size_t|\w+_t|[A-Z]+(?:INT|WORD|LONG)\w*)\b|\*"
)
"""What C++ code may move without a constructor or destructor running elsewhere."""
HOLDS_NOTHING = frozenset(
    b"accept accept4 bind clock_getres clock_gettime connect difftime epoll_ctl epoll_pwait epoll_wait fcntl fgets "
    b"fprintf fread fstat fstatat fstatfs fstatvfs futimens fwrite getaddrinfo getgrgid_r getline getpeername "
    b"getpwnam_r getpwuid_r getrlimit getrusage getsockname getsockopt gettimeofday gmtime_r inet_ntop inet_pton "
    b"ioctl kevent localtime_r lstat memchr memcmp memcpy memmove memset mktime nanosleep poll printf pselect "
    b"pthread_attr_destroy pthread_attr_init pthread_attr_setstacksize pthread_create pthread_mutex_lock "
    b"pthread_mutex_trylock pthread_mutex_unlock pthread_once pthread_sigmask read recvfrom recvmsg scanf select "
    b"sendmsg sendto setrlimit setsockopt sigaction sigaddset sigdelset sigemptyset sigfillset sigismember "
    b"sigprocmask sizeof snprintf sprintf sscanf stat statfs statvfs strcat strcmp strcpy strftime strlen strncat "
    b"strncmp strncpy strtod strtol strtoul sysinfo tcgetattr tcsetattr time uname utimensat write".split()
)
"""Functions that use an address while they run, and keep it no longer."""
CALLER = re.compile(rb"([A-Za-z_]\w*+)\s*+\((?:[^()]|\([^()]*+\))*+\Z")
EXTERN = re.compile(rb"extern(?<=\bextern)\b[^;{}()=]*?([A-Za-z_]\w*+)\s*+(?:\[[^\]]*+\]\s*+)?;")
PASTED = re.compile(rb"([A-Za-z_]\w*+)\s*+##|##\s*+([A-Za-z_]\w*+)")
HEAD = re.compile(rb"\b(?:if|while|switch)\s*+\([\s(]*+\Z")
STAYS = frozenset((b"static", b"extern", b"thread_local", b"_Thread_local", b"volatile", b"typedef"))
ENDS_A_MEMBER_ACCESS = frozenset((b".", b">", b" ", b"\t", b"\n", b"\r", b"\v", b"\f"))
MAX_CLIMB = 1_000
MAX_SPACE = 4_000
"""Bytes of comment, blanked, between two statements, and of a value that is assigned."""


class CInnerScope(FileRule):
    """
    A local that could be declared in an inner block.

    Why: the fewer statements can see an object, the fewer can be at fault when its value is wrong.
    Instead: move the declaration to the block that uses it.
    Not found: locals that only a part of their block uses, where that part is no block of its own; objects of C++ with
    a constructor. What is carried from one pass of a loop to the next, initialised with a computed value, or held by
    its address beyond the block, is not reported; nor is what only the head of a `for` uses.
    Source: Holzmann, "The Power of Ten", IEEE Computer 39(6), 2006, rule 6.
    """

    id = "P10-R6-inner-scope"
    detector = DETECTOR
    languages = C_LANGUAGES
    examples = (
        """
int f(int n)
{
    int sum = 0, last, count;
    char buffer[8];
    char *kept = 0;
    for (int i = 0; i < n; i++) { last = sum; sum += i; }
    if (n > 3) { kept = buffer; count = 1; }
    else { count = 2; }
    for (n = 0; n < 3; n++) { static int calls; calls++; }
    return sum + count + last + (kept != 0);
}
int registered(int n)
{
    struct timer timer;
    if (n) { timer_start(&timer); }
    return loop_run();
}
""",
        """
int g(int n)
{
    int square;     // expect: P10-R6-inner-scope
    int carried;
    char text[10];  // expect: P10-R6-inner-scope
    int zero = 0;   // expect: P10-R6-inner-scope
    for (int i = 0; i < n; i++) {
        square = i * i;
        use(square);
        if (i == 0) { carried = 1; }
        else { carried++; }
    }
    if (n) { fill(text); use(zero); }
    return n;
}
void h(int n)
{
    int last;     // expect: P10-R6-inner-scope
    int result;   // expect: P10-R6-inner-scope
    while (n > 0) {
        /*
         * A comment of some lines before the statement that writes it first.
         */
        last = n--;
        use(last);
        do {
            if ((result = next(last)) < 0) { break; }
            use(result);
        } while (more());
    }
}
""",
    )

    def check(self, parsed: ParsedFile) -> Iterator[Finding]:
        """Yield each local that one inner block alone uses, at its name."""
        unit = as_c(parsed)
        candidates: dict[tuple[int, bytes], Object] = {}
        twice: set[tuple[int, bytes]] = set()
        for declared, owner in unit.locals:
            key = owner.body, declared.name
            if key in candidates:
                twice.add(key)
            candidates[key] = declared
        for key in [key for key, local in candidates.items() if key in twice or not _movable(unit, local)]:
            del candidates[key]
        if not candidates:
            return
        blocks = _Blocks(unit)
        uses = _uses(unit, candidates)
        for key, local in candidates.items():
            where = blocks.smallest(unit.layout.code, local, uses.get(key, []))
            if where is not None:
                line = unit.line_of(where)
                message = f"{local.name.decode('utf-8', 'replace')} is used in the block of line {line} only"
                yield self.finding(unit.region(local.start, local.end), message)


class CFileScope(FileRule):
    """
    A file-scope object that one function alone uses.

    Why: what every function of the file can change, every function of the file can break.
    Instead: make it a `static` local of that function.
    Not found: objects in headers. `const` tables, objects that a macro names and objects whose address is held
    elsewhere are not reported.
    Source: Holzmann, "The Power of Ten", IEEE Computer 39(6), 2006, rule 6.
    """

    id = "P10-R6-file-scope"
    detector = DETECTOR
    languages = C_LANGUAGES
    examples = (
        """
static const int table[] = {1, 2};
static int shared;
static int held;
static int by_macro;
#define COUNT() (by_macro++)
int *where = &held;
int one(void) { shared++; return table[0] + held; }
int two(void) { return shared + COUNT(); }
""",
        """
static int calls;  // expect: P10-R6-file-scope
static char last[8];  // expect: P10-R6-file-scope
int one(void) { calls++; return last[0]; }
int two(int calls) { return calls; }
""",
    )

    def check(self, parsed: ParsedFile) -> Iterator[Finding]:
        """Yield each static object with one user, at its name."""
        unit = as_c(parsed)
        if unit.name.endswith(HEADERS):
            return
        for declared, users in _file_scope(unit):
            if len(users) == 1:
                user = next(iter(users))
                yield self.finding(
                    unit.region(declared.start, declared.end),
                    f"{declared.name.decode('utf-8', 'replace')} is used by {user} only; declare it there",
                )


class _FileObjects(msgspec.Struct, frozen=True, array_like=True, gc=False):
    defined: tuple[tuple[str, Place], ...]
    """External objects that are not constant, with the place of their name."""
    shown: tuple[str, ...]
    """What the file declares without defining; of a header, all."""


class CObjects(Facts):
    """External objects that a file defines, and those that it names as another's."""

    id = "c-objects"
    detector = DETECTOR
    languages = C_LANGUAGES
    shape = _FileObjects

    def collect(self, parsed: ParsedFile) -> object:
        """Return a `_FileObjects`."""
        unit = as_c(parsed)
        header = unit.name.endswith(HEADERS)
        defined: dict[str, Place] = {}
        shown: dict[str, None] = {}
        for declared in unit.file_objects:
            name = declared.name.decode("utf-8", "replace")
            if header or b"extern" in declared.specifiers:
                shown[name] = None
            elif b"static" not in declared.specifiers and not _constant(declared) and unit.dialect == "c":
                defined.setdefault(name, place_of(unit, declared.start, declared.end))
        for word in EXTERN.findall(unit.layout.code):
            shown[word.decode("utf-8", "replace")] = None  # also inside of functions
        free = _unnamed_by_macros(unit, {name.encode() for name in defined})
        kept = tuple((name, place) for name, place in defined.items() if name.encode() in free)
        return _FileObjects(kept, tuple(shown))


class CExternalObject(TreeRule):
    """
    An object with external linkage that one file alone uses.

    Why: every file of the program can change it by accident or by a clash of names.
    Instead: make it `static`, or show it in a header if others are meant to use it.
    Not found: objects of C++; objects that only assembler or another language refers to are reported.
    Source: Holzmann, "The Power of Ten", IEEE Computer 39(6), 2006, rule 6.
    """

    id = "P10-R6-external-object"
    detector = DETECTOR
    languages = C_LANGUAGES
    needs = ("c-objects",)
    examples = (
        """
// file: a.h
extern int shown;
// file: a.c
#include "a.h"
int shown;
int borrowed;
static int own;
const int limit = 3;
typedef __attribute__((aligned(1))) int unaligned;
const char *const names[] = {"a", "b"};
int take(void) { return shown + borrowed + own + limit; }
// file: b.c
extern int borrowed;
int give(void) { return borrowed; }
""",
        """
// file: a.c
int counter;  // expect: P10-R6-external-object
const char *texts[] = {"a", "b"};  // expect: P10-R6-external-object
int count(void) { return counter++; }
int reset(void) { return counter = 0; }
// file: b.c
int main(void) { return 0; }
""",
    )

    def check_tree(self, facts: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, Finding]]:
        """Yield each external object that no header and no other file declares."""
        files = {path: msgspec.convert(value, _FileObjects) for path, value in facts["c-objects"].items()}
        shown = {name for file in files.values() for name in file.shown}
        for path, file in files.items():
            for name, place in file.defined:
                if name not in shown:
                    message = f"{name} has external linkage, and no other file uses it; make it static"
                    yield path, self.finding(place.region, message)


class _Blocks:
    """The blocks of a file and what lies in which; linear in their number."""

    def __init__(self, unit: CFile) -> None:
        loops = {node.start_byte for node in unit.nodes("block.loop")}
        switches = {node.start_byte for node in unit.nodes("block.switch")}
        ranges = sorted(set(unit.blocks), key=lambda r: (r[0], -r[1]))
        self.starts = [start for start, _ in ranges]
        self.ends = [end for _, end in ranges]
        self.is_loop = [start in loops for start in self.starts]
        self.is_switch = [start in switches for start in self.starts]
        self.parents: list[int] = []
        self.depths: list[int] = []
        opened: list[int] = []
        for number, (start, _) in enumerate(ranges):
            while opened and self.ends[opened[-1]] <= start:  # p10: each block is closed once
                opened.pop()
            self.parents.append(opened[-1] if opened else -1)
            self.depths.append(len(opened))
            opened.append(number)

    def at(self, offset: int) -> int:
        """Return the number of the innermost block that holds `offset`; -1 for none."""
        number = bisect.bisect_right(self.starts, offset) - 1
        for _ in range(MAX_CLIMB):
            if number < 0 or self.ends[number] > offset:
                return number
            number = self.parents[number]
        return -1

    def smallest(self, code: bytes, local: Object, uses: Sequence[int]) -> int | None:
        """Return the offset of the inner block that a local could be declared in; `None` if there is none."""
        home = self.at(local.start)
        if home < 0 or not uses:
            return None
        inner = self._around(uses, home)
        while inner > home and self.is_switch[inner]:  # p10: climbs to an outer block each time
            inner = self.parents[inner]
        if inner < 0 or self.depths[inner] <= self.depths[home] or self._held(code, local, uses):
            return None
        if self._in_loop(inner, home):
            initialised = INITIALISED.match(code, local.end) is not None
            if initialised or self.at(uses[0]) != inner or not _overwrites(code, local, uses):
                return None
        return self.starts[inner]

    def _around(self, uses: Sequence[int], home: int) -> int:
        found = self.at(uses[0])
        for offset in uses[1:]:
            for _ in range(MAX_CLIMB):
                if found < 0 or found == home or self.starts[found] <= offset < self.ends[found]:
                    break
                found = self.parents[found]
            if found in (-1, home):
                break
        return found

    def _in_loop(self, inner: int, home: int) -> bool:
        for _ in range(MAX_CLIMB):
            if inner in (-1, home):
                return False
            if self.is_loop[inner]:
                return True
            inner = self.parents[inner]
        return True

    def _held(self, code: bytes, local: Object, uses: Sequence[int]) -> bool:
        """Tell whether an address of the local may outlive a block: stored, or of a structure handed to a call."""
        # Of a number the address asks for a result; of a structure it may be a registration.
        plain = local.pointer or PLAIN_TYPES.search(b" ".join(local.specifiers)) is not None
        for offset in uses:
            before = code[max(offset - 40, 0) : offset].rstrip()
            taken = before.endswith(b"&") and not before.endswith(b"&&")
            if not taken and not (local.array and code[offset + len(local.name) :].lstrip()[:1] not in (b"[", b".")):
                continue
            if before.rstrip(b"& ").endswith((b"=", b"return", b"?", b":", b"{", b"+", b")")):
                return True
            if taken and not plain and _is_kept(code, offset):
                return True
        return False


def _is_kept(code: bytes, offset: int) -> bool:
    """Tell whether an address is handed to a function that may keep it."""
    caller = CALLER.search(code[max(offset - 200, 0) : offset].rstrip())
    return caller is not None and caller[1] not in HOLDS_NOTHING


def _movable(unit: CFile, local: Object) -> bool:
    if local.in_head or not local.specifiers.isdisjoint(STAYS):
        return False
    code = unit.layout.code
    if INITIALISED.match(code, local.end) is not None and INITIAL.match(code, local.end) is None:
        return False
    return unit.dialect == "c" or local.pointer or PLAIN_TYPES.search(b" ".join(local.specifiers)) is not None


def _uses(unit: CFile, candidates: Mapping[tuple[int, bytes], Object]) -> dict[tuple[int, bytes], list[int]]:
    """Return where each local is used behind its declaration; nothing for what a macro names."""
    code = unit.layout.code
    names = _unnamed_by_macros(unit, {name for _, name in candidates})
    found: dict[tuple[int, bytes], list[int]] = {}
    ends = {function.body: function.end for function in unit.functions}
    for (body, name), local in candidates.items():
        if name in names:
            places = unit.places(name, body, ends[body])
            uses = [place for place in places if place != local.start and not _is_member(code, place)]
            if uses and uses[0] > local.start:
                found[body, name] = uses
    return found


def _unnamed_by_macros(unit: CFile, names: Iterable[bytes]) -> frozenset[bytes]:
    """Return the names that no macro of the file spells, or may paste together."""
    spelt: set[bytes] = set()
    starts: set[bytes] = set()
    ends: set[bytes] = set()
    for macro, words in zip(unit.layout.macros, unit.macro_words, strict=True):
        spelt |= words - macro.parameters
        for match in PASTED.finditer(macro.code):
            if match[1] and match[1] not in macro.parameters:
                starts.add(match[1])
            if match[2] and match[2] not in macro.parameters:
                ends.add(match[2])
    prefixes, suffixes = tuple(starts), tuple(ends)
    return frozenset(
        name for name in names if name not in spelt and not name.startswith(prefixes) and not name.endswith(suffixes)
    )


def _is_member(code: bytes, offset: int) -> bool:
    if code[offset - 1 : offset] not in ENDS_A_MEMBER_ACCESS:
        return False  # by far the most
    before = code[max(offset - 8, 0) : offset].rstrip()
    return before.endswith((b".", b"->")) and not before.endswith(b"...")


def _overwrites(code: bytes, local: Object, uses: Sequence[int]) -> bool:
    """Tell whether the first use writes the whole local without reading it, so that no pass needs the one before."""
    first = uses[0]
    after = code[first + len(local.name) : first + len(local.name) + 40].lstrip()
    if not after.startswith(b"=") or after.startswith(b"=="):
        return False
    before = code[max(first - MAX_SPACE, 0) : first].rstrip()
    if before.endswith((b";", b"{", b"}")):
        end = code.find(b";", first)
    elif before.endswith(b"(") and HEAD.search(before[-80:]):
        end = closing(code, code.rfind(b"(", 0, first), first + MAX_SPACE) or len(code)
    else:
        return False
    return len(uses) == 1 or uses[1] > end


def _file_scope(unit: CFile) -> Iterator[tuple[Object, frozenset[str]]]:
    """
    Yield the file's changeable static objects with the functions that use them; none where others may reach them.

    Of more than two users not all are named.
    """
    code = unit.layout.code
    candidates = {
        declared.name: declared
        for declared in unit.file_objects
        if b"extern" not in declared.specifiers and not _constant(declared)
    }
    statics = {name for name, declared in candidates.items() if b"static" in declared.specifiers}
    names = _unnamed_by_macros(unit, statics)
    users: dict[bytes, set[str]] = {name: set() for name in names}
    reached: set[bytes] = set()
    for offset, word in unit.words(names):
        name = word.encode()
        if name in reached or len(users[name]) > 1:
            continue  # whatever follows, it is not one function's
        declared = candidates[name]
        if offset == declared.start or _is_member(code, offset):
            continue
        owner = unit.function_at(offset)
        if owner is None:
            # In the head of a function it is a parameter; elsewhere another object's value holds it.
            if not unit.in_function(offset) and not _redeclared(code, offset):
                reached.add(name)
        elif word not in unit.locals_of(owner):
            users[name].add(owner.name)
            if _is_held(code, declared, offset, owner):
                reached.add(name)
    for name in sorted(names - reached, key=lambda name: candidates[name].start):
        yield candidates[name], frozenset(users[name])


def _redeclared(code: bytes, offset: int) -> bool:
    """Tell whether a name at file scope stands in another declaration of itself."""
    start = max(code.rfind(mark, max(offset - MAX_SPECIFIERS, 0), offset) for mark in (b";", b"}", b"{"))
    return b"=" not in code[start + 1 : offset] and b"(" not in code[start + 1 : offset]


def _is_held(code: bytes, declared: Object, offset: int, owner: Function) -> bool:
    """Tell whether the address of an object is handed to something that may keep it."""
    before = code[max(offset - 200, owner.body) : offset].rstrip()
    after = code[offset + len(declared.name) : offset + len(declared.name) + 40].lstrip()
    taken = before.endswith(b"&") and not before.endswith(b"&&") and not after.startswith((b".", b"->", b"["))
    decays = declared.array and not after.startswith((b"[", b"."))
    if not (taken or decays):
        return False
    caller = CALLER.search(before)
    return caller is None or caller[1] not in HOLDS_NOTHING


def _constant(declared: Object) -> bool:
    if declared.specifiers & {b"constexpr", b"typedef"}:
        return True
    if declared.pointer:
        return FIXED in declared.specifiers
    return b"const" in declared.specifiers
