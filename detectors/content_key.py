"""
Arguments to a 32-byte key over their content.

Equal content gives an equal key, one changed byte another, and no two types share one: every value is written with
its type and its length before it is hashed. What has no content that can be seen (a lock, a generator, a class, a
socket) raises `Unkeyable`; its execution is run and never kept.
"""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import fractions
import hashlib
import os
import pathlib
import re
import stat
import struct
import sys
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

__all__ = ["Unkeyable", "content_key"]

MAX_DEPTH = 100
MAX_VALUES = 10_000_000
"""Values and containers in one set of arguments; more cannot be keyed."""


class Unkeyable(Exception):
    """A value has no content to take a key over, or changed while it was read."""


class _Level:
    """A container whose children are being hashed."""

    __slots__ = ("children", "parts", "tag", "unordered")

    def __init__(self, tag: bytes, children: Iterator[Any], unordered: bool = False) -> None:
        self.tag, self.children, self.unordered = tag, children, unordered
        self.parts: list[bytes] = []

    def digest(self) -> bytes:
        parts = sorted(self.parts) if self.unordered else self.parts
        return hashlib.sha256(b"%b%d:" % (self.tag, len(parts)) + b"".join(parts)).digest()


class _Pair:
    __slots__ = ("items",)

    def __init__(self, *items: Any) -> None:
        self.items = items


_END = object()


def content_key(value: Any, path_in_key: bool = True) -> bytes:
    """
    Return the key of a value.

    Args:
        value: Plain data, containers, dataclasses, msgspec structs, enums, dates, numpy arrays, pandas frames, and
            paths, which stand for the file's bytes (or the folder's tree). The order of a dict does not count.
        path_in_key: Whether a path's own name counts beside its content.

    Returns:
        32 bytes: SHA-256 over type-tagged, length-prefixed content.

    Raises:
        Unkeyable: No content to take a key over, too deep (100) or too large.
    """
    levels = [_Level(b"root", iter((value,)))]
    for _ in range(MAX_VALUES):
        level = levels[-1]
        child = next(level.children, _END)
        if child is _END:
            digest = levels.pop().digest()
            if not levels:
                return digest
            levels[-1].parts.append(digest)
            continue
        leaf = _LEAVES.get(type(child))
        if leaf is not None:
            level.parts.append(leaf(child))
            continue
        if len(levels) > MAX_DEPTH:
            raise Unkeyable("the arguments are nested too deeply, or hold themselves")
        levels.append(_opened(child, path_in_key))
    raise Unkeyable("the arguments hold too many values")


def _leaf(tag: bytes, data: bytes) -> bytes:
    return b"%b%d:" % (tag, len(data)) + data


_LEAVES: dict[type, Callable[[Any], bytes]] = {
    type(None): lambda _: b"none0:",
    type(...): lambda _: b"dots0:",
    bool: lambda value: b"true0:" if value else b"fals0:",
    int: lambda value: _leaf(b"int", b"%x" % value),
    float: lambda value: _leaf(b"float", struct.pack(">d", value)),
    complex: lambda value: _leaf(b"complex", struct.pack(">dd", value.real, value.imag)),
    str: lambda value: _leaf(b"str", value.encode("utf-8", "surrogatepass")),
    bytes: lambda value: _leaf(b"bytes", value),
    bytearray: lambda value: _leaf(b"bytearray", bytes(value)),
    uuid.UUID: lambda value: _leaf(b"uuid", value.bytes),
    decimal.Decimal: lambda value: _leaf(b"decimal", str(value).encode()),
    datetime.date: lambda value: _leaf(b"date", value.isoformat().encode()),
    datetime.timedelta: lambda value: _leaf(b"delta", b"%d,%d,%d" % (value.days, value.seconds, value.microseconds)),
}


def _opened(value: Any, path_in_key: bool) -> _Level:  # noqa: PLR0911 - one return a kind
    """Return the level of a value that is no leaf; exact types, since a subclass may behave otherwise."""
    match value:
        case _Pair():
            return _Level(b"pair", iter(value.items))
        case tuple() | list() if type(value) in {tuple, list}:
            return _Level(type(value).__name__.encode(), iter(value))
        case dict() if type(value) is dict:
            return _Level(b"dict", (_Pair(key, item) for key, item in value.items()), unordered=True)
        case set() | frozenset() if type(value) in {set, frozenset}:
            return _Level(type(value).__name__.encode(), iter(value), unordered=True)
        case pathlib.PurePath():
            return _path(value, path_in_key)
        case enum.Enum():
            return _Level(_named(b"enum", value), iter((value.name,)))
        case range() | slice():
            return _Level(_named(b"range", value), iter((value.start, value.stop, value.step)))
        case datetime.datetime() | datetime.time():
            return _Level(_named(b"time", value), iter((value.isoformat(), str(value.tzinfo), value.fold)))
        case fractions.Fraction():
            return _Level(b"fraction", iter((value.numerator, value.denominator)))
        case re.Pattern():
            return _Level(b"pattern", iter((value.pattern, value.flags)))
    return _structured(value)


# p10: ignore[R10] a check that answers as soon as it knows reads better than one that nests by the maintainers
def _structured(value: Any) -> _Level:
    kind = type(value)
    if isinstance(value, type):
        raise Unkeyable(f"the class {value.__qualname__} has no content to take a key over")
    if isinstance(value, msgspec.Struct):
        fields = kind.__struct_fields__
        return _Level(_named(b"struct", value), iter([getattr(value, name) for name in fields]))
    if dataclasses.is_dataclass(value):
        names = [field.name for field in dataclasses.fields(value)]
        return _Level(_named(b"dataclass", value), iter([_Pair(name, getattr(value, name)) for name in names]))
    if isinstance(value, tuple) and hasattr(kind, "_fields"):
        return _Level(_named(b"named", value), iter(value))
    # Only what is loaded can have made the value; nothing heavy is imported to find out.
    numpy: Any = sys.modules.get("numpy")
    pandas: Any = sys.modules.get("pandas")
    if numpy is not None and isinstance(value, numpy.ndarray | numpy.generic):
        return _array(value)
    if pandas is not None and isinstance(value, pandas.DataFrame):
        # Columns by place: two may have the same name.
        columns = [value.iloc[:, place] for place in range(value.shape[1])]
        return _Level(_named(b"frame", value), iter([value.columns, value.index, *columns]))
    if pandas is not None and isinstance(value, pandas.Series | pandas.Index):
        names = list(value.names) if isinstance(value, pandas.Index) else [value.name, value.index]
        content = value.to_numpy() if isinstance(value.dtype, numpy.dtype) else value.tolist()
        return _Level(_named(b"series", value), iter([str(value.dtype), *names, content]))
    if pandas is not None and value is pandas.NA:
        return _Level(b"pandas.NA", iter(()))
    raise Unkeyable(f"{kind.__module__}.{kind.__qualname__} has no content to take a key over")


def _array(value: Any) -> _Level:
    if value.dtype.hasobject:
        return _Level(_named(b"array", value), iter([value.dtype.str, value.shape, value.ravel().tolist()]))
    digest = hashlib.sha256(value.tobytes()).digest()
    return _Level(_named(b"array", value), iter([str(value.dtype.descr), value.shape, digest]))


def _named(tag: bytes, value: Any) -> bytes:
    kind = type(value)
    return b"%b(%b.%b)" % (tag, kind.__module__.encode(), kind.__qualname__.encode())


def _path(path: pathlib.PurePath, path_in_key: bool) -> _Level:
    if not isinstance(path, pathlib.Path):
        return _Level(_named(b"purepath", path), iter((os.fspath(path),)))
    name = (os.fspath(path),) if path_in_key else ()
    try:
        mode = path.stat().st_mode
        if stat.S_ISREG(mode):
            return _Level(b"file", iter((*name, _file_digest(path))))
        if stat.S_ISDIR(mode):
            return _Level(b"folder", iter((*name, *_tree(path))))
    except OSError as problem:
        raise Unkeyable(f"{path} cannot be read: {problem.strerror}") from problem
    raise Unkeyable(f"{path} is neither a file nor a folder")


def _file_digest(path: pathlib.Path) -> bytes:
    with path.open("rb") as file:
        before = os.fstat(file.fileno())
        digest = hashlib.file_digest(file, "sha256").digest()
        after = os.fstat(file.fileno())
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise Unkeyable(f"{path} changed while it was read")
    return digest


def _tree(root: pathlib.Path) -> Iterator[_Pair]:
    """Yield (name, kind, digest) of everything below a folder; links are their targets' names, not followed."""
    for folder, folders, files in os.walk(root):
        folders.sort()
        for name in sorted(files + folders):
            entry = pathlib.Path(folder, name)
            relative = os.fspath(entry.relative_to(root))
            mode = entry.lstat().st_mode
            if stat.S_ISLNK(mode):
                yield _Pair(relative, "link", os.fspath(entry.readlink()))
            elif stat.S_ISREG(mode):
                yield _Pair(relative, "file", _file_digest(entry))
            elif stat.S_ISDIR(mode):
                yield _Pair(relative, "folder")
            else:
                raise Unkeyable(f"{entry} is neither a file nor a folder")
