"""
A `compile_commands.json` of the scanned tree, reduced to what is safe to pass on.

The tree is untrusted, and a compile database names plugins, response files and programs: both compilers and clang-tidy
run what it says. So it is parsed here and an allow-list is kept: folders of the tree to search, macros, a language
standard, and files of the tree to include first.
Source: "JSON Compilation Database Format Specification", LLVM project.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator, Sequence

import msgspec

from detectors.closures import Context

__all__ = ["NAME", "commands_of"]

NAME = "compile_commands.json"
FOLDERS = ("-I", "-isystem", "-iquote", "-idirafter")
MACRO = re.compile(r"-[DU][A-Za-z_]\w*(?:\([\w, .]*\))?(?:=[^\0\n]*)?\Z")
STANDARD = re.compile(r"-std=(?:c|gnu|iso9899:)[a-z0-9+]+\Z")


class _Entry(msgspec.Struct, frozen=True):
    directory: str
    file: str
    command: str = ""
    arguments: tuple[str, ...] = ()


def commands_of(data: bytes, folder: str, root: str, label: str) -> dict[str, Context]:
    """
    Return how each file is compiled, by report path.

    Args:
        data: The database.
        folder: The database's own folder below the root, empty for the root.
        root: Absolute path of the root on the machine of the run.
        label: Of the root; empty if it is the only one.

    Raises:
        ValueError: It is no compile database.
    """
    assert root.startswith("/"), "names of the database are held against the whole path"
    assert not folder.startswith("/"), "the database lies below the root"
    if not data:
        raise ValueError("no compile database: it is empty")
    try:
        entries = msgspec.json.decode(data, type=list[_Entry])
    except msgspec.MsgspecError as problem:
        raise ValueError(f"no compile database: {problem}") from problem
    commands: dict[str, Context] = {}
    for entry in entries:
        place = _Place(entry.directory, folder, root, label)
        path = place.path(entry.file)
        if path and path not in commands:
            commands[path] = _context(_arguments(entry), place)
    return commands


class _Place:
    """Where the names of an entry lie in the tree."""

    def __init__(self, directory: str, folder: str, root: str, label: str) -> None:
        self._directory, self._root, self._label = os.path.normpath(directory), root, label
        inside = self._below(self._directory, root)
        # A tree that was moved since: the build's folder is the one that the database lies in.
        self._base = folder if inside is None else inside
        self._moved = inside is None
        assert not self._base.startswith("/"), "the build's folder is one of the tree"
        assert "/" not in label, "a label is the first part of its report paths"

    def path(self, name: str) -> str | None:
        """Return the report path that a name of the entry means; `None` if it lies outside of the tree."""
        if not name:
            return None
        absolute = os.path.normpath(f"{self._directory}/{name}" if not name.startswith("/") else name)
        if self._moved:
            moved = os.path.normpath(f"{self._base}/{os.path.relpath(absolute, self._directory)}".lstrip("/"))
            relative = None if moved.startswith("..") else moved
        else:
            relative = self._below(absolute, self._root)
        if relative is None:
            return None
        relative = "" if relative == "." else relative
        assert not relative.startswith(("/", "../")), "nothing outside of the tree is passed on"
        return f"{self._label}/{relative}".rstrip("/") if self._label else relative

    @staticmethod
    def _below(path: str, root: str) -> str | None:
        assert root, "the root is a folder"
        if path == root:
            return ""
        inside = root.rstrip("/") + "/"
        return path[len(inside) :] if path.startswith(inside) else None


def _arguments(entry: _Entry) -> Sequence[str]:
    if entry.arguments:
        return entry.arguments
    if not entry.command:
        return ()
    try:
        return shlex.split(entry.command)
    except ValueError:
        return ()  # an open quote: nothing of it can be trusted to mean what it seems


def _context(arguments: Sequence[str], place: _Place) -> Context:
    search: list[str] = []
    flags: list[str] = []
    for name, value in _pairs(arguments):
        if name in FOLDERS:
            path = place.path(value)
            if path is not None and path not in search:
                search.append(path)
        elif name == "-include":
            path = place.path(value)
            if path:
                flags += ["-include", path]
        elif MACRO.match(name) or STANDARD.match(name):
            flags.append(name)
    assert len(set(search)) == len(search), "a folder is searched once"
    assert not any(folder.startswith("/") for folder in search), "folders are those of the tree"
    return Context(search=tuple(search), flags=tuple(flags))


def _pairs(arguments: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield (option, value) with the value apart; an option that carries none has an empty one."""
    if not arguments:
        return
    rest = iter(arguments)
    for argument in rest:
        joined = next((name for name in FOLDERS if argument.startswith(name) and argument != name), None)
        if joined is not None:
            yield joined, argument[len(joined) :]
        elif argument in (*FOLDERS, "-include"):
            yield argument, next(rest, "")
        elif argument in ("-D", "-U"):
            yield argument + next(rest, ""), ""
        else:
            yield argument, ""
