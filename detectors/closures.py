"""
What a result depends on beside the file's own bytes: the headers a C file includes, the modules a Python file imports.

Computed from the snapshot alone, before any tool runs, so that it can stand in the cache's key: the files that are
reached, the names that are looked up in vain, and the folders that are searched. A tool that reads closures is shown
these files and no others, so nothing else of the tree can change what it says.

Where no compile database names the include folders of a file, they are guessed: a name that is not found beside its
includer is looked for at the end of every path of the tree, and the folder nearest to the file is searched from then
on.
"""

from __future__ import annotations

import hashlib
import itertools
import platform
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from detectors.cache import ResultCache, result_key
from detectors.errors import SourceChanged
from detectors.model import Analysed, Digest, FileReport, Language, SourceFile
from detectors.parsing import decode
from detectors.snapshot import Snapshot, read_verified

__all__ = [
    "Closure",
    "ClosureKind",
    "Context",
    "ImportClosures",
    "IncludeClosures",
    "ReferenceReader",
    "references",
    "system_folders",
]

FORMAT = 2
"""Of the references; a change of what is read from a file needs another."""
ClosureKind = Literal["includes", "imports"]
References = tuple[str, ...]
"""For C: `"name`, `<name`, or `?` for a name that a macro computes. For Python: dotted names, leading dots kept."""

SKIPPED = re.compile(
    rb"(?P<comment>/\*[\s\S]*?(?:\*/|\Z)|//[^\n]*)|\"(?:[^\"\\\n]|\\[\s\S])*+\"?|'(?:[^'\\\n]|\\[\s\S])*+'?"
)
JOINED = re.compile(rb"(?:\\|\?\?/)[ \t]*\r?\n")
INCLUDE = re.compile(
    rb"^[ \t\v\f]*(?:\#|%:|\?\?=)[ \t\v\f]*(?:include|include_next|import|embed)\b[ \t\v\f]*"
    rb"(?:\"(?P<quoted>[^\"\n]+)\"|<(?P<angled>[^>\n]+)>|(?P<computed>[^\n]*))",
    re.MULTILINE,
)
ASKED = re.compile(rb"__has_(?:include|include_next|embed)\s*\(\s*(?:\"(?P<quoted>[^\"\n]+)\"|<(?P<angled>[^>\n]+)>)")
MODULE = r"(?:\.[ \t]*)*(?:\w+[ \t]*(?:\.[ \t]*\w+[ \t]*)*)?"
IMPORT = re.compile(
    r"(?:^|[;:])[ \t\f]*(?:from\b[ \t]*(?P<base>" + MODULE + r")\bimport\b[ \t]*"
    r"(?P<names>\((?:[^()#]|#[^\n]*)*|[^\n;#]*)"
    r"|import[ \t]+(?P<modules>[^\n;#]+))",
    re.MULTILINE,
)
NAME = re.compile(r"[\w.]+")
COMMENT = re.compile(r"#[^\n]*")
BLANKS = re.compile(r"[ \t\f]*\.[ \t\f]*|^[ \t\f]+|[ \t\f]+$")


class Context(msgspec.Struct, frozen=True):
    """How a tool is to look at a file."""

    search: tuple[str, ...] = ()
    """Folders of the tree, as report paths without a `/` at the end (empty: the root), in the order of their search."""
    flags: tuple[str, ...] = ()
    """What a compile database says that may be passed on: `-D`, `-U`, `-std=`; and `-include` with a report path."""
    language: Language | None = None
    """What the file is to be read as, where that differs from its suffix: a header of C++ called `.h`."""


class Closure(msgspec.Struct, frozen=True):
    """What one file's result depends on."""

    files: tuple[str, ...] = ()
    """Report paths of the other files that are reached, sorted."""
    missing: tuple[str, ...] = ()
    """Names of headers that the tree does not hold, with the stat of the system's file where there is one, sorted."""
    context: Context = Context()

    def digest(self, digests: Mapping[str, Digest]) -> str:
        """Return the hexadecimal digest over the closure; `digests` holds at least its files."""
        told = [(path, digests[path]) for path in self.files], self.missing, self.context
        return hashlib.sha256(msgspec.msgpack.encode(told)).hexdigest()


def references(data: bytes, language: Language) -> References:
    """Return what a file's text refers to, without doubles, in order; too many rather than too few."""
    found = _imports(data) if language == "python" else _includes(data)
    return tuple(dict.fromkeys(found))


def system_folders() -> tuple[str, ...]:
    """Return the folders in which this machine's compilers look by themselves, C++ left out."""
    own = sorted(map(str, Path("/usr/lib/gcc").glob("*/*/include")))
    return (*own, "/usr/local/include", f"/usr/include/{platform.machine()}-linux-gnu", "/usr/include")


class ReferenceReader:
    """
    The references of a snapshot's files, by report path; read once a content, then taken from the store.

    A context manager: what was read is stored at its end.

    Args:
        snapshot: Of the run.
        store: Where references are kept between runs.
        run_id: Of the run.
        units: Report paths that will surely be asked for, with their languages.
    """

    def __init__(self, snapshot: Snapshot, store: ResultCache, run_id: str, units: Mapping[str, Language]) -> None:
        self._files = {file.path: file for file in snapshot.files}
        self._roots = tuple(root.path for root in snapshot.roots)
        self._store, self._run_id = store, run_id
        self._known = self._stored([self._files[path] for path in units])
        self._fresh: dict[bytes, References] = {}

    def __enter__(self) -> Callable[[str], References]:
        """Return the function that takes a report path."""
        return self._references

    def __exit__(self, *_: object) -> None:
        """Store what was read."""
        packed = [
            (key, Analysed("", "", FileReport((), {"references": msgspec.msgpack.encode(found)}), 0.0))
            for key, found in self._fresh.items()
        ]
        self._store.store(self._run_id, packed)

    def _references(self, path: str) -> References:
        file = self._files[path]
        key = _reference_key(file)
        if key not in self._known:
            self._known |= self._stored([file])
        if key not in self._known:
            try:
                data = read_verified(self._roots[file.root], file)
            except SourceChanged:
                return ()  # whoever analyses the file sees the same, and says so
            self._known[key] = self._fresh[key] = references(data, file.language)
        return self._known[key]

    def _stored(self, files: Iterable[SourceFile]) -> dict[bytes, References]:
        sound = self._store.lookup([_reference_key(file) for file in files])
        stored = self._store.facts(list(sound))
        decode = msgspec.msgpack.Decoder(References).decode
        return {key: decode(facts["references"]) for key, facts in stored.items()}


def _reference_key(file: SourceFile) -> bytes:
    return result_key(Digest(f"references:{FORMAT}"), file.digest, file.language, "")


class IncludeClosures:
    """
    Closures of C and C++ files.

    Args:
        paths: Report paths of every file of the snapshot.
        roots: Labels of the snapshot's roots: no include leads from one to another.
        refer: Given a report path, the file's `references`.
        commands: From compile databases: search folders and flags by report path.
        system: Folders of the compiler; what is found there is never guessed to be the tree's.
    """

    def __init__(
        self,
        paths: Iterable[str],
        roots: Sequence[str],
        refer: Callable[[str], References],
        commands: Mapping[str, Context],
        system: Sequence[str],
    ) -> None:
        self._paths = frozenset(paths)
        self._roots = roots
        self._refer, self._commands, self._system = refer, commands, system
        self._by_name: dict[str, list[str]] = {}
        for path in sorted(self._paths):
            self._by_name.setdefault(path.rpartition("/")[2], []).append(path)
        self._stats: dict[str, tuple[bool, str]] = {}

    def of_all(self, units: Mapping[str, Language]) -> dict[str, Closure]:
        """
        Return the closures of all C and C++ files, translation units and headers on their own.

        A header takes folders, flags and language from the first unit that includes it, C before C++.

        Args:
            units: By report path what the file is taken for.
        """
        order = sorted(units, key=lambda path: (units[path] != "c", path))
        closures: dict[str, Closure] = {}
        owners: dict[str, str] = {}
        for path in order:
            if not _is_header(path):
                closures[path] = closure = self._of(path, self._commands.get(path, Context()))
                for file in closure.files:
                    owners.setdefault(file, path)
        for path in order:
            if path in closures:
                continue
            owner = owners.get(path)
            context = closures[owner].context if owner else Context()
            language: Language | None = units[owner] if owner and units[owner] != units[path] else None
            closures[path] = self._of(path, msgspec.structs.replace(context, language=language))
        return closures

    def _of(self, path: str, given: Context) -> Closure:
        search = list(given.search)
        found: dict[str, None] = {}
        missing: set[str] = set()
        forced = [flag for before, flag in itertools.pairwise(given.flags) if before == "-include" and flag != path]
        found.update(dict.fromkeys(forced))
        waiting = [path, *forced]
        # Every file is entered once.
        while waiting:  # p10: bounded by the files of the tree
            includer = waiting.pop()
            for reference in self._refer(includer):
                reached = self._resolve(reference, includer, path, search, guess=path not in self._commands)
                if not reached and reference != "?":
                    missing.add(reference + self._stat(reference[1:])[1])
                for file in reached:
                    if file not in found and file != path:
                        found[file] = None
                        waiting.append(file)
        context = msgspec.structs.replace(given, search=tuple(search))
        return Closure(tuple(sorted(found)), tuple(sorted(missing)), context)

    def _resolve(self, reference: str, includer: str, unit: str, search: list[str], *, guess: bool) -> Sequence[str]:
        kind, name = reference[0], reference[1:]
        top = self._top(unit)
        if kind == "?":
            # A macro names it, so it may be any header of the tree.
            return [file for file in sorted(self._paths) if self._top(file) == top and _is_header(file)]
        folders = [includer.rpartition("/")[0], *search] if kind == '"' else search
        for folder in folders:
            target = _joined(folder, name)
            if target in self._paths and self._top(target) == top:
                return (target,)
        if not guess or self._stat(name)[0]:
            return ()
        near = self._nearest(name, unit, top)
        if near is None:
            return ()
        search.append(near[: -len(name)].rstrip("/"))
        return (near,)

    def _nearest(self, name: str, unit: str, top: str) -> str | None:
        """Return the file whose path ends with `name`, nearest to the unit; `None` where there is none."""
        if name.startswith(("/", "../")) or "/../" in name or "/./" in name or name.startswith("./"):
            return None
        ends = [
            path
            for path in self._by_name.get(name.rpartition("/")[2], ())
            if (path == name or path.endswith(f"/{name}")) and self._top(path) == top
        ]
        here = unit.split("/")[:-1]
        return min(ends, key=lambda path: (*_distance(here, path.split("/")[:-1]), path), default=None)

    def _top(self, path: str) -> str:
        return path.partition("/")[0] if len(self._roots) > 1 else ""

    def _stat(self, name: str) -> tuple[bool, str]:
        """Tell whether the compiler's own folders hold `name`, and the stat by which a new version is known."""
        known = self._stats.get(name)
        if known is None:
            known = self._stats[name] = next(filter(None, map(_stated, self._system_files(name))), (False, ""))
        return known

    def _system_files(self, name: str) -> Iterator[str]:
        if not name.startswith("/") and ".." not in name.split("/"):
            for folder in self._system:
                yield f"{folder}/{name}"


class ImportClosures:
    """
    Closures of Python files, over the modules of the tree.

    Args:
        paths: Report paths of every Python file of the snapshot.
        refer: Given a report path, the file's `references`.
    """

    def __init__(self, paths: Iterable[str], refer: Callable[[str], References]) -> None:
        self._paths = frozenset(paths)
        self._refer = refer
        self._direct: dict[str, tuple[str, ...]] = {}
        names = _names_below(self._paths)
        self.bases = _import_bases(self._paths, names)
        """Folders below which modules have their names; no two files have one name."""
        self._bases_of: dict[str, list[str]] = {}
        for base in self.bases:
            for name in names.get(base, ()):
                self._bases_of.setdefault(name, []).append(base)
        self._first_below: dict[str, str] = {}
        for path in sorted(self._paths, reverse=True):
            self._first_below.update(dict.fromkeys(_folders_above(path), path))

    def of_all(self, units: Mapping[str, Language]) -> dict[str, Closure]:
        """Return the closures of modules: every module that each reaches, and their packages."""
        return {path: self._of(path) for path in units}

    def _of(self, path: str) -> Closure:
        found = {path}
        waiting = [path]
        # Every module is entered once.
        while waiting:  # p10: bounded by the files of the tree
            new = [file for file in self._reached_from(waiting.pop()) if file not in found]
            found.update(new)
            waiting += new
        found.remove(path)
        return Closure(tuple(sorted(found)), (), Context(self.bases))

    def _reached_from(self, path: str) -> tuple[str, ...]:
        """Return the files that decide what one module is, and what its imports mean."""
        known = self._direct.get(path)
        if known is None:
            reached = self._namesakes(path)
            for folder in _folders_above(path):
                reached += self._files(_below(folder, "__init__"))
            for reference in self._refer(path):
                reached += self._resolve(reference, path)
            known = self._direct[path] = tuple(dict.fromkeys(reached))
        return known

    def _namesakes(self, path: str) -> list[str]:
        """Return the files that an import of the module's name may mean: its stub, a package beside it."""
        folder, stem = path.rpartition("/")[0], _stem(path)
        if stem == "__init__" and folder:
            folder, _, stem = folder.rpartition("/")
        return self._walk(folder, [stem])

    def _resolve(self, reference: str, importer: str) -> list[str]:
        name = reference.lstrip(".")
        level = len(reference) - len(name)
        parts = name.split(".") if name else []
        if level:
            folders = importer.split("/")[:-level]
            return self._walk("/".join(folders), parts) if level <= importer.count("/") + 1 else []
        reached: list[str] = []
        for base in self._bases_of.get(parts[0], ()) if parts else ():
            reached += self._walk(base, parts)
        return reached

    def _walk(self, folder: str, parts: Sequence[str]) -> list[str]:
        """Return the files that `folder` and each of `parts` below it mean: packages on the way, then the module."""
        reached = self._files(_below(folder, "__init__"))
        deepest = ""
        for part in parts:
            folder = _below(folder, part)
            for stem in (folder, f"{folder}/__init__", f"{folder}-stubs/__init__"):
                reached += self._files(stem)
            deepest = folder if folder in self._first_below else deepest
        # A folder is a module by itself (PEP 420), so it must be there, whoever else is looked at.
        if deepest and not any(file.startswith(f"{deepest}/") for file in reached):
            reached.append(self._first_below[deepest])
        return reached

    def _files(self, stem: str) -> list[str]:
        return [path for path in (f"{stem}.py", f"{stem}.pyi") if path in self._paths]


def _includes(data: bytes) -> Iterator[str]:
    joined = JOINED.sub(b"", data)
    text = SKIPPED.sub(lambda match: b" " if match["comment"] else match[0], joined)
    for match in INCLUDE.finditer(text):
        yield from _reference(match, "?")
    for match in ASKED.finditer(text):
        yield from _reference(match, "")


def _reference(match: re.Match[bytes], otherwise: str) -> Iterator[str]:
    groups = match.groupdict()
    if groups["quoted"]:
        yield '"' + groups["quoted"].decode("utf-8", "replace")
    elif groups["angled"]:
        yield "<" + groups["angled"].decode("utf-8", "replace")
    elif otherwise and (groups.get("computed") or b"").strip():
        yield otherwise


def _imports(data: bytes) -> Iterator[str]:
    text = decode(data, "python").replace("\r\n", "\n").replace("\r", "\n").replace("\\\n", " ")
    for match in IMPORT.finditer(text):
        if match["modules"]:
            yield from filter(None, map(_module_name, match["modules"].split(",")))
            continue
        base = _module_name(match["base"], dots_only=True)
        if not base:
            continue
        yield base
        for item in COMMENT.sub("", match["names"]).strip("( \t\f\n").split(","):
            # What is imported from a package may be a module of it.
            if name := _module_name(item.strip()):
                yield f"{base}{'' if base.endswith('.') else '.'}{name}"


def _module_name(text: str, *, dots_only: bool = False) -> str:
    """Return the dotted name at the start of an item of an import, as Python compares names (NFKC)."""
    name = NAME.match(BLANKS.sub(lambda match: "." if "." in match[0] else "", text))
    if name is None or (not dots_only and not name[0].strip(".")):
        return ""
    return unicodedata.normalize("NFKC", name[0])


def _import_bases(paths: frozenset[str], below: Mapping[str, set[str]]) -> tuple[str, ...]:
    """
    Return the folders below which modules are named, deepest first.

    The folder above a tree of packages is one, and so is a folder of scripts outside of any package, unless two files
    would then have one name: the later folder's files are named from a base above it.
    """
    packages = {path.rpartition("/")[0] for path in paths if _stem(path) == "__init__"}
    bases = {""}
    taken = set(below.get("", ()))
    for folder in sorted({path.rpartition("/")[0] for path in paths}, key=lambda name: (name.count("/"), name)):
        parts = folder.split("/")
        above = ("/".join(parts[:depth]) for depth in range(1, len(parts) + 1))
        package = next((ancestor for ancestor in above if ancestor in packages), None)
        base = folder if package is None else package.rpartition("/")[0]
        if base not in bases and not below[base] & taken:
            bases.add(base)
            taken |= below[base]
    return tuple(sorted(bases, key=lambda name: (-name.count("/") - bool(name), name)))


def _names_below(paths: Iterable[str]) -> dict[str, set[str]]:
    """Return for each folder the names of modules and folders in it."""
    below: dict[str, set[str]] = {}
    for path in paths:
        folder, _, name = path.rpartition("/")
        below.setdefault(folder, set()).add(name.removesuffix(".py").removesuffix(".pyi"))
        while folder:  # p10: bounded by the depth of the path
            folder, _, name = folder.rpartition("/")
            below.setdefault(folder, set()).add(name)
    return below


def _folders_above(path: str) -> Iterator[str]:
    """Yield the folders that hold a file, the nearest first, without the root."""
    folder = path.rpartition("/")[0]
    while folder:  # p10: bounded by the depth of the path
        yield folder
        folder = folder.rpartition("/")[0]


def _below(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


def _joined(folder: str, name: str) -> str:
    """Return the path that `name` means from `folder`; empty if it leads out of the tree."""
    parts = [part for part in folder.split("/") if part]
    for part in name.split("/"):
        if part == "..":
            if not parts:
                return ""
            parts.pop()
        elif part not in ("", "."):
            parts.append(part)
    return "" if name.startswith("/") else "/".join(parts)


def _distance(here: Sequence[str], there: Sequence[str]) -> tuple[int, int]:
    shared = 0
    for mine, other in zip(here, there, strict=False):
        if mine != other:
            break
        shared += 1
    return -shared, len(there)


def _is_header(path: str) -> bool:
    return path.endswith((".h", ".hh", ".hpp", ".hxx", ".inc", ".def", ".tbl", ".ipp", ".tcc"))


def _stem(path: str) -> str:
    return path.rpartition("/")[2].removesuffix(".py").removesuffix(".pyi")


def _stated(file: str) -> tuple[bool, str] | None:
    try:
        seen = Path(file).stat()
    except OSError:
        return None
    return True, f" {seen.st_size} {seen.st_mtime_ns}"
