"""What the tools that compile C and C++ share: language and folders of a unit, and sources that cannot mute them."""

from __future__ import annotations

import re
from typing import Literal

from detectors.closures import Context

__all__ = ["language_of", "place_of", "search_flags", "told", "unmuted"]

C_SUFFIXES = ("c", "h")
DIRECTIVE = re.compile(
    rb"^[ \t]*(?:\#|%:|\?\?=)[ \t]*"
    rb"(?:pragma[ \t]+(?:GCC|clang)[ \t]+(?:diagnostic|system_header)\b|line\b|\d)"
    rb"(?:[^\\\n]|\\[\s\S])*",
    re.MULTILINE,
)
OPERATOR = re.compile(
    rb"\b(?:_Pragma|__pragma)\s*\(\s*(?:\"\s*(?:GCC|clang)\s+(?:diagnostic|system_header)(?:[^\"\\]|\\.)*\"|#\s*\w+)\s*\)"
)
NOT_LAYOUT = re.compile(rb"[^\n\r\\]|\\(?!\r?\n)")


def language_of(file: str, context: Context) -> Literal["c", "cpp"]:
    """Return what a unit is compiled as: what the context says, else by its suffix."""
    assert "." in file, "C and C++ are known by their suffix"
    if context.language is not None:
        return "cpp" if context.language == "cpp" else "c"
    return "c" if file.rpartition(".")[2] in C_SUFFIXES else "cpp"


def search_flags(context: Context) -> list[str]:
    """Return the folders of the context as options; headers of the system's are not reported on."""
    assert not any(folder.startswith("/") for folder in context.search), "these are folders of the shadow tree"
    assert all(folder.startswith("/") for folder in context.system), "these are folders of the machine"
    own = [f"-I{folder if folder == '.' else './' + folder}" for folder in context.search]
    return [*own, *(option for folder in context.system for option in ("-isystem", folder))]


def place_of(name: str) -> str:
    """Return a file as the shadow tree names it, from the spelling of a diagnostic."""
    if "/" not in name and not name.startswith("."):
        return name
    parts: list[str] = []
    for part in name.split("/"):
        if part == ".." and parts:
            parts.pop()
        elif part not in (".", ".."):
            parts.append(part)
    assert ".." not in parts, "a place is below the tree"
    return "/".join(parts)


def told(file: str, line: str, message: str) -> str:
    """Return why a file was not analysed; what a file outside of the tree says is not shown."""
    assert line.isdigit(), "a diagnostic stands on a line"
    if file.startswith("/"):
        return f"{file}:{line}: an error in this file of the system"[:200]
    return f"{place_of(file)}:{line}: {message}"[:200]


def unmuted(data: bytes) -> bytes:
    """
    Return the bytes with what mutes a compiler or moves its lines blanked, on the same lines.

    Such are the pragmas `diagnostic` and `system_header`, also as an operator (as well as one that a macro makes of its
    argument, which may be any), and line directives.
    """
    shown = DIRECTIVE.sub(lambda match: NOT_LAYOUT.sub(b" ", match[0]), data)
    shown = OPERATOR.sub(lambda match: NOT_LAYOUT.sub(b" ", match[0]), shown)
    assert len(shown) == len(data), "what is found must stand where it stands in the file"
    assert shown.count(b"\n") == data.count(b"\n"), "and on the same line"
    return shown
