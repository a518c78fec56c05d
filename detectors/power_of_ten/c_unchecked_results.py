"""Rule 7 in C, the caller's half: results of calls are looked at."""

from __future__ import annotations

import bisect
import functools
import itertools
import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from detectors.c_parsing import WORD_BYTES, CFile, Function
from detectors.detector import Facts, FileRule, TreeRule, once
from detectors.model import Finding
from detectors.parsing import ParsedFile
from detectors.power_of_ten.c_expressions import closing
from detectors.power_of_ten.c_vocabulary import C_LANGUAGES, DETECTOR, HEADERS, Place, as_c, place_of

if TYPE_CHECKING:
    from tree_sitter import Node

__all__ = ["CResults", "CUncheckedPrint", "CUncheckedResult", "CUnreadResult"]

MAX_PARTS = 200
"""Nodes of one expression statement that are looked at."""
MAX_EXPANSIONS = 20
MAX_BEFORE = 400
"""Bytes around a call in a macro that tell whether it is a statement."""
MAX_ARGUMENTS = 4_000
"""Bytes of its arguments."""
RESULT_MATTERS = frozenset(
    b"accept access aligned_alloc at_quick_exit atexit bind bsearch calloc chdir chmod chown clock clock_gettime "
    b"close closedir cnd_broadcast cnd_init cnd_signal cnd_timedwait cnd_wait connect creat dlclose dlopen dlsym "
    b"dup dup2 execl execle execlp execv execve execvp fchmod fchown fclose fcntl fdopen fflush fgetc fgetpos "
    b"fgets fgetwc fileno fopen fopen_s fork fread freopen fscanf fseek fseeko fsetpos fstat fsync ftell ftruncate "
    b"fwrite fwscanf getc getchar getcwd getenv gethostname getline getpeername getrlimit gets_s getsockname "
    b"getsockopt gettimeofday getwc getwchar gmtime ioctl kill link listen localtime lseek lstat malloc mbstowcs "
    b"mbtowc memchr mkdir mkdtemp mkfifo mkstemp mktime mlock mmap mprotect msync mtx_init mtx_lock mtx_timedlock "
    b"mtx_trylock mtx_unlock munmap nanosleep open openat opendir pclose pipe pipe2 poll popen posix_memalign "
    b"pread pthread_attr_destroy pthread_attr_init pthread_attr_setstacksize pthread_barrier_destroy "
    b"pthread_barrier_init pthread_cancel pthread_cond_broadcast pthread_cond_destroy pthread_cond_init "
    b"pthread_cond_signal pthread_cond_timedwait pthread_cond_wait pthread_condattr_destroy pthread_condattr_init "
    b"pthread_condattr_setclock pthread_create pthread_detach pthread_join pthread_key_create pthread_key_delete "
    b"pthread_kill pthread_mutex_destroy pthread_mutex_init pthread_mutex_lock pthread_mutex_trylock "
    b"pthread_mutex_unlock pthread_mutexattr_destroy pthread_mutexattr_init pthread_mutexattr_settype pthread_once "
    b"pthread_rwlock_destroy pthread_rwlock_init pthread_rwlock_rdlock pthread_rwlock_tryrdlock "
    b"pthread_rwlock_trywrlock pthread_rwlock_unlock pthread_rwlock_wrlock pthread_setspecific pthread_sigmask "
    b"putenv pwrite raise read readlink readv realloc reallocarray realpath recv recvfrom recvmsg remove rename "
    b"rmdir scanf select sem_destroy sem_init sem_post sem_trywait sem_wait send sendmsg sendto setegid setenv "
    b"seteuid setgid setgroups setrlimit setsockopt setuid setvbuf shutdown sigaction sigaddset sigdelset "
    b"sigemptyset sigfillset sigismember sigprocmask sigwait socket socketpair sscanf stat statvfs strchr strdup "
    b"strftime strndup strpbrk strrchr strstr strtod strtof strtol strtoll strtoul strtoull strxfrm swprintf "
    b"swscanf symlink sysconf system tcsetattr thrd_create thrd_detach thrd_join thrd_sleep time_get timespec_get "
    b"tmpfile tmpnam truncate tss_create tss_get tss_set uname ungetc ungetwc unlink unsetenv usleep utime vfscanf "
    b"vscanf vsscanf wait waitpid wcschr wcsstr wcstombs wctomb write writev wscanf".split()
)
"""Functions of the C library and POSIX whose result tells a failure."""
RETURNS_ITS_ARGUMENT = frozenset(
    b"fprintf fputc fputs fputwc fputws fwprintf printf putc putchar puts putwc putwchar snprintf sprintf vfprintf "
    b"vfwprintf vprintf vswprintf vwprintf "
    b"vsnprintf vsprintf wprintf memccpy memcpy memmove memset stpcpy strcat strcpy strncat strncpy wcscat "
    b"wcscpy wcsncpy wmemcpy wmemset signal setlocale umask alarm".split()
)
"""Functions whose result is a count, an argument or the state before; dropping it is a note."""
ONE_CALL = re.compile(rb"\(?\s*+[A-Za-z_]\w*+\s*+\((?:[^()]|\([^()]*+\))*+\)\s*+\)?;?")
VOID = re.compile(rb"\bvoid\b")
STORED = re.compile(rb"=(?!=)\s*+(?:\([\w\s*]*+\)\s*+)?(?!sizeof\b)[A-Za-z_]\w*+\s*+\(")
MAX_TARGET = 400
"""Bytes before an assignment that are read for the name of what it changes."""
ASSIGNED = re.compile(rb"\w+\s*+=(?!=)")
LAST_OF_A_VALUE = re.compile(rb";?\s*+\}\s*+\)")
"""Ends a GNU expression of statements, whose value is that of the last."""
HEAD_OR_BRANCH = re.compile(
    rb"\b(?:(?:if|while|for|switch)\s*+\((?:[^()]|\((?:[^()]|\([^()]*+\))*+\))*+\)|else|do|case\b[^;{}?]*:|default\s*+:)\Z"
)
JUMPS_BACK = re.compile(rb"\b(?:for|while|do|goto)\b")
BRANCHES = re.compile(rb"[{}:?]|\b(?:if|else|while|for|do|switch|goto|return)\b|&&|\|\|")
STARTS_A_STATEMENT = (b";", b"{", b"}", b":", b"")


class _FileFacts(msgspec.Struct, frozen=True, array_like=True, gc=False):
    returns: dict[str, int]
    """Functions defined or declared here: 1 returns a value, 0 does not, -1 both; `!` before a static one's name."""
    members: dict[str, int]
    """Members that are pointers to functions, the same way."""
    dropped: tuple[tuple[str, bool, Place], ...]
    """(name, whether of a member, place of the name) of calls whose result nothing takes."""
    macros: dict[str, str]
    """Macros whose body is one call: the name that it calls; empty for other macros with arguments."""


class CResults(Facts):
    """Which functions return a value, and which calls drop it."""

    id = "c-results"
    detector = DETECTOR
    languages = C_LANGUAGES
    shape = _FileFacts

    def collect(self, parsed: ParsedFile) -> object:
        """Return a `_FileFacts`."""
        unit = as_c(parsed)
        code = unit.layout.code
        returns: dict[str, int] = {}
        for function in unit.functions:
            if function.parameters >= -1 and function.name and not function.name.endswith(")"):
                head = code[function.start : function.name_start]
                key = ("!" if function.static else "") + function.name
                _note(returns, key, _returns(head, unit))
        for prototype in unit.prototypes:
            static = "!" if prototype.static else ""
            _note(returns, static + prototype.name, _returns(prototype.head, unit))
        members: dict[str, int] = {}
        for node in unit.nodes("member"):
            if node.type == "function_declarator" and (found := _pointer_member(code, node)) is not None:
                _note(members, *found)
        dropped = tuple(
            (name, member, place_of(unit, start, end))
            for name, member, start, end in _dropped(unit)
            # Outside of functions it is a declaration that the parser could not make out.
            if unit.in_function(start) and (member or not _is_local(unit, name, start))
        ) + tuple(
            (call.name, False, place_of(unit, call.start, call.start + len(call.name)))
            for text, macro in zip(unit.layout.macros, unit.macros, strict=True)
            for call in macro.calls
            if _is_dropped(text.code, call.start - text.body, call.start - text.body + len(call.name))
        )
        macros: dict[str, str] = {}
        for text, macro in zip(unit.layout.macros, unit.macros, strict=True):
            if macro.takes_arguments:
                one = len(macro.calls) == 1 and ONE_CALL.fullmatch(text.code.strip()) is not None
                body = macro.calls[0].name if one else ""
                macros[macro.name] = body if macros.get(macro.name, body) == body else ""
        return _FileFacts(returns, members, dropped, macros)


class _Drops:
    """What is known of the whole tree's functions, asked for one dropped call at a time."""

    def __init__(self, facts: Mapping[str, Any]) -> None:
        self.files = {path: msgspec.convert(value, _FileFacts) for path, value in facts.items()}
        self._shared: dict[str, int] = {}
        self._members: dict[str, int] = {}
        self._macros: dict[str, str] = {}
        for path, file in self.files.items():
            header = path.endswith(HEADERS)
            for name, value in file.returns.items():
                if not name.startswith("!"):
                    _note(self._shared, name, value)
                elif header:
                    _note(self._shared, name[1:], value)
            for name, value in file.members.items():
                _note(self._members, name, value)
            if header:
                for name, body in file.macros.items():
                    self._macros[name] = body if self._macros.get(name, body) == body else ""

    @functools.cached_property
    def kinds(self) -> list[tuple[str, str, str, Place]]:
        """(path, `result` or `print`, name, place) of each call whose result is known to be dropped."""
        found = []
        alike: dict[str, str] = {}
        for path, file in self.files.items():
            here: dict[str, str] = {}
            for name, member, place in file.dropped:
                if member:
                    kind = self._member(name)
                else:
                    # What neither the file nor a macro says anything of means the same in all such files.
                    said = name in file.returns or "!" + name in file.returns or name in file.macros
                    known = here if said or name in self._macros else alike
                    if name not in known:
                        known[name] = self._kind(file, name)
                    kind = known[name]
                if kind:
                    found.append((path, kind, name, place))
        return found

    def _member(self, name: str) -> str:
        return "result" if self._members.get(name) == 1 else ""

    def _kind(self, file: _FileFacts, name: str) -> str:
        for _ in range(MAX_EXPANSIONS):
            own = file.returns.get("!" + name, file.returns.get(name))
            body = file.macros.get(name, None if own is not None else self._macros.get(name))
            if body is None or body == name:
                break
            if not body:
                return ""
            name = body
        else:
            return ""
        own = file.returns.get("!" + name)
        known = own if own is not None else self._shared.get(name)
        if known is not None:
            return "" if known != 1 else "print" if name.encode() in RETURNS_ITS_ARGUMENT else "result"
        known_library = name.encode()
        return "result" if known_library in RESULT_MATTERS else "print" if known_library in RETURNS_ITS_ARGUMENT else ""


class CUncheckedResult(TreeRule):
    """
    The result of a call that is dropped.

    Why: most failures are told by a result; what is not looked at goes on with what is not there.
    Instead: check it, hand it on, or write `(void)` before the call to say that it does not matter, and why.
    Reported: functions of the tree that return a value, seen over all files, and functions of the C library whose
    result tells a failure; also behind a comma, in the arms of `?:`, through macros of one call, in the bodies of
    others, and through members that are pointers to functions with a result in every structure of the tree.
    Not found: functions of other libraries, and calls whose result cannot be known.
    Source: Holzmann, "The Power of Ten", IEEE Computer 39(6), 2006, rule 7.
    """

    id = "P10-R7-unchecked-result"
    detector = DETECTOR
    languages = C_LANGUAGES
    needs = ("c-results",)
    examples = (
        """
#include <stdio.h>
static int count(void) { return 3; }
static void log_it(int n) { (void)n; }
int *next(void);
void run(FILE *f)
{
    int n = count();
    (void)count();
    log_it(n);
    unknown(n);
    if (fclose(f) != 0) { log_it(1); }
    n == 3 ? log_it(1) : log_it(2);
    n = count(), log_it(n);
}
""",
        """
// file: a.h
int save(int);
#define SAVE(x) save(x)
#define FAIL(x) do { if (x) save(x); } while (0)  // expect: P10-R7-unchecked-result
#define TWICE(x) log_it(x); save(x)  // expect: P10-R7-unchecked-result
#define CASE(x) case x: save(x); break;  // expect: P10-R7-unchecked-result
API kind_t kind(struct ops *o);
#define VALUE(x) ({ (void) save(1); save(x); })
struct ops { int (*send)(int); void (*stop)(void); };
// file: a.c
#include <stdio.h>
static int count(void) { return 3; }
void run(FILE *f, struct ops *o, int n)
{
    count();                       // expect: P10-R7-unchecked-result
    fclose(f);                     // expect: P10-R7-unchecked-result
    n ? save(1) : (void)save(2);   // expect: P10-R7-unchecked-result
    n = 1, save(n);                // expect: P10-R7-unchecked-result
    SAVE(4);                       // expect: P10-R7-unchecked-result
    o->send(1);                    // expect: P10-R7-unchecked-result
    o->stop();
}
""",
    )

    def check_tree(self, facts: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, Finding]]:
        """Yield each dropped result, at the name that is called."""
        for path, kind, name, place in once(_Drops, facts["c-results"]).kinds:
            if kind == "result":
                yield path, self.finding(place.region, f"the result of {name} is dropped; check it, or say (void)")


class CUncheckedPrint(TreeRule):
    """
    The dropped result of `printf`, `memcpy` and kin.

    Why: the paper asks to check every result, and allows to say `(void)` where checking it brings nothing.
    Instead: write `(void)printf(…)`.
    Not found: functions that are not known.
    Source: Holzmann, "The Power of Ten", IEEE Computer 39(6), 2006, rule 7.
    """

    id = "P10-R7-unchecked-print"
    level = "note"
    detector = DETECTOR
    languages = C_LANGUAGES
    needs = ("c-results",)
    examples = (
        '#include <stdio.h>\nvoid f(void) { (void)printf("x"); int n = puts("y"); (void)n; }\n',
        '#include <stdio.h>\nvoid f(char *a)\n{\n    printf("x");  // expect: P10-R7-unchecked-print\n'
        "    memset(a, 0, 3);  // expect: P10-R7-unchecked-print\n}\n",
    )

    def check_tree(self, facts: Mapping[str, Mapping[str, Any]]) -> Iterator[tuple[str, Finding]]:
        """Yield each, at the name that is called."""
        for path, kind, name, place in once(_Drops, facts["c-results"]).kinds:
            if kind == "print":
                yield path, self.finding(place.region, f"the result of {name} is dropped without (void)")


class CUnreadResult(FileRule):
    """
    A result that is stored and never looked at.

    Why: it looks as if it were checked.
    Instead: check it before it is overwritten, or drop it with `(void)`.
    Reported: locals that hold results of calls and are never read; a result that the next use of the local overwrites
    in the same block; in a function without loops, one that nothing after it reads.
    Not found: results that one branch overwrites, and those read in another branch only.
    Source: Holzmann, "The Power of Ten", IEEE Computer 39(6), 2006, rule 7.
    """

    id = "P10-R7-unread-result"
    detector = DETECTOR
    languages = C_LANGUAGES
    examples = (
        """
int f(int n)
{
    int a = g(n), b, c;
    b = g(a);
    if (b) { b = g(b); }
    c = g(1);
    use(&c);
    c = g(2);
    return b + c;
}
void through(int n)
{
    int *p = place(n);
    *p = g(n);
}
""",
        """
int f(int n)
{
    int a;
    int b = g(n);  // expect: P10-R7-unread-result
    a = g(1);      // expect: P10-R7-unread-result
    a = g(2);
    return a;
}
int last(int n)
{
    int a;
    a = g(1);
    if (a) { return a; }
    a = g(2);      // expect: P10-R7-unread-result
    return n;
}
""",
    )

    def check(self, parsed: ParsedFile) -> Iterator[Finding]:
        """Yield each stored result that nothing looks at, at the local's name."""
        unit = as_c(parsed)
        code = unit.layout.code
        stores: dict[int, dict[bytes, list[int]]] = {}
        for start, name in _stored(code):
            owner = unit.function_at(start)
            if owner is not None and name.decode() in unit.locals_of(owner):
                stores.setdefault(owner.body, {}).setdefault(name, []).append(start)
        macros = frozenset[bytes]().union(*unit.macro_words)
        own = {(owner.body, declared.name): declared for declared, owner in unit.locals}
        for owner in unit.functions:
            names = stores.get(owner.body, {})
            hides = bool(names) and _hides_reads(unit, owner)
            straight = bool(names) and _is_straight(unit, owner)
            for name in names:
                declared = own.get((owner.body, name))
                if declared is None or name in macros or declared.specifiers & {b"static", b"volatile", b"extern"}:
                    continue
                found = _occurrences(unit, owner, name)
                if hides and all(_is_store(code, place) for place in found if place != declared.start):
                    continue
                for start in _unread(unit, found, frozenset(names[name]), declared.start, straight):
                    message = f"{name.decode('utf-8', 'replace')} holds a result that nothing looks at"
                    yield self.finding(unit.region(start, start + len(name)), message)


def _stored(code: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield (offset, name) of what the results of calls are assigned to."""
    for match in STORED.finditer(code):
        before = code[max(match.start() - MAX_TARGET, 0) : match.start()].rstrip()
        name = before[len(before.rstrip(WORD_BYTES)) :]
        if name and not name[:1].isdigit():
            yield code.rfind(name, 0, match.start()), name


def _hides_reads(unit: CFile, owner: Function) -> bool:
    """Tell whether a function uses macros of other files, which may read its locals."""
    own = {macro.name for macro in unit.layout.macros}
    calls = unit.calls
    first = bisect.bisect_left(calls, owner.body, key=lambda call: call.start)
    last = bisect.bisect_left(calls, owner.end, key=lambda call: call.start)
    return any(call.name.isupper() and call.name not in own for call in calls[first:last])


def _note(known: dict[str, int], name: str, value: int) -> None:
    known[name] = value if known.get(name, value) == value else -1


def _returns(head: bytes, unit: CFile) -> int:
    """Tell what stands before a function's name: 1 a value's type, 0 plain `void`, -1 what cannot be told."""
    if VOID.search(head):
        return 0 if b"*" not in head[head.rfind(b"void") :] else 1
    words = [word for word in re.findall(rb"[A-Za-z_]\w*+", head) if word not in (b"static", b"inline", b"extern")]
    if not words:
        return -1 if unit.dialect == "cpp" else 1  # a constructor, or C's implicit int
    # `UV_EXTERN f(void)`, `PyMODINIT_FUNC f(void)`: a macro may hold the type, and may hold void.
    return -1 if len(words) == 1 and words[0].isupper() and b"*" not in head else 1


def _pointer_member(code: bytes, node: Node) -> tuple[str, int] | None:
    """Return the name of a member that is a pointer to a function, and whether that returns a value."""
    text = node.text or b""
    name = re.match(rb"\(\s*+(?:[A-Za-z_]\w*+\s++)?\*\s*+([A-Za-z_]\w*+)\s*+\)", text)
    if name is None:
        return None
    before = re.split(rb"[;{}]", code[max(node.start_byte - 200, 0) : node.start_byte])[-1]
    return name[1].decode(), 0 if VOID.search(before) and b"*" not in before else 1


def _calls(node: Node) -> Iterator[tuple[str, bool, int, int]]:
    """Yield (name, whether of a member, start, end) of the calls in an expression whose value is dropped."""
    pending = [node]
    for _ in range(MAX_PARTS):
        if not pending:
            return
        current = pending.pop()
        kind = current.type
        if kind == "comma_expression":
            # What stands on the left is captured by itself, wherever the comma stands.
            pending += [right for right in [current.child_by_field_name("right")] if right is not None]
        elif kind == "parenthesized_expression":
            pending += current.named_children
        elif kind == "binary_expression":
            operator = current.child_by_field_name("operator")
            right = current.child_by_field_name("right")
            if operator is not None and operator.type in ("&&", "||") and right is not None:
                pending.append(right)
        elif kind == "conditional_expression":
            arms = (current.child_by_field_name("consequence"), current.child_by_field_name("alternative"))
            pending += [arm for arm in arms if arm is not None]
        elif kind == "call_expression":
            called = current.child_by_field_name("function")
            member = called is not None and called.type == "field_expression"
            name = called.child_by_field_name("field") if member and called is not None else called
            if name is not None and name.type in ("identifier", "field_identifier") and name.text:
                yield name.text.decode("utf-8", "replace"), member, name.start_byte, name.end_byte


def _is_dropped(body: bytes, start: int, end: int) -> bool:
    """Tell whether a call in a macro's body is a statement; the whole of a body is what its use makes of it."""
    before = body[max(start - MAX_BEFORE, 0) : start].rstrip()
    last = closing(body, body.find(b"(", end), end + MAX_ARGUMENTS)
    after = body[last + 1 : last + MAX_BEFORE].lstrip() if last is not None else b""
    if last is None or LAST_OF_A_VALUE.match(after):
        return False
    if before.endswith((b";", b"{", b"}")):
        return after.startswith(b";") or not after
    if before and HEAD_OR_BRANCH.search(before) is None:
        return False
    # A body that starts with it is a row of statements only if another follows.
    return after.startswith(b";") and (bool(before) or after != b";")


def _dropped(unit: CFile) -> Iterator[tuple[str, bool, int, int]]:
    """Yield (name, whether of a member, start, end) of the calls whose value nothing takes."""
    text = unit.layout.parsable
    for capture, member in (("dropped.call", False), ("dropped.member", True)):
        for node in unit.nodes(capture):
            start, end = node.byte_range
            if start < end:
                yield text[start:end].decode("utf-8", "replace"), member, start, end
    for capture in ("dropped", "dropped.left"):
        for node in unit.nodes(capture):
            yield from _calls(node)


def _is_local(unit: CFile, name: str, offset: int) -> bool:
    """Tell whether a name means a local pointer to a function."""
    if name not in unit.declared:
        return False
    owner = unit.function_at(offset)
    return owner is not None and name in unit.locals_of(owner)


def _occurrences(unit: CFile, owner: Function, name: bytes) -> list[int]:
    """Return where a name stands in a function, members of the same name left out."""
    code, places = unit.layout.code, unit.places(name, owner.start, owner.end)
    return [place for place in places if not code[max(place - 8, 0) : place].rstrip().endswith((b".", b"->"))]


def _unread(unit: CFile, uses: list[int], stores: frozenset[int], declared: int, straight: bool) -> Iterator[int]:
    """Yield the stores of a result that no read follows: none at all, or an overwrite at once."""
    code = unit.layout.code
    reads = [place for place in uses if place != declared and not _is_store(code, place)]
    if not reads:
        yield from sorted(stores)
        return
    taken = any(code[max(place - 8, 0) : place].rstrip().endswith(b"&") for place in uses)
    if straight and not taken and uses[-1] in stores and _is_store(code, uses[-1]):
        yield uses[-1]
    for place, (here, after) in enumerate(itertools.pairwise(uses)):
        if here in stores and _is_store(code, after) and after != declared:
            beyond = uses[place + 2] if place + 2 < len(uses) else len(code)
            if beyond < code.find(b";", after):
                continue  # `a = f(a)` reads before it overwrites
            between = code[here:after]
            # One straight line: no block begins or ends, nothing jumps in, and the value is not its own.
            if not unit.has_directive(here, after) and BRANCHES.search(between) is None:
                yield here


def _is_straight(unit: CFile, owner: Function) -> bool:
    """Tell whether no loop, jump or branch of the preprocessor leads back, so that the last in the text is the last."""
    back = JUMPS_BACK.search(unit.layout.code, owner.body, owner.end)
    return back is None and not unit.has_directive(owner.body, owner.end)


def _is_store(code: bytes, place: int) -> bool:
    """Tell whether a name is assigned to by a statement of its own, or declared with a value."""
    if ASSIGNED.match(code, place) is None:
        return False
    before = code[max(place - 60, 0) : place].rstrip()
    if before.endswith(b"*"):
        # `int *p = f()` stores, `*p = f()` follows p.
        before = before.rstrip(b"* \t\n")
        return before[-1:] == b"," or before[-1:].isalnum() or before.endswith(b"_")
    return before[-1:] in STARTS_A_STATEMENT or before[-1:] == b"," or before[-1:].isalnum()
