"""What the tools that compile C and C++ share: language and folders of a unit, and sources that cannot mute them."""

from __future__ import annotations

import re
from typing import Literal

from detectors.closures import Context

__all__ = ["language_of", "place_of", "search_flags", "unmuted"]

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
NOT_LAYOUT = re.compile(rb"[^\n\r\\]")


def language_of(file: str, context: Context) -> Literal["c", "cpp"]:
    """Return what a unit is compiled as: what the context says, else by its suffix."""
    if context.language is not None:
        return "cpp" if context.language == "cpp" else "c"
    return "c" if file.rpartition(".")[2] in C_SUFFIXES else "cpp"


def search_flags(context: Context) -> list[str]:
    """Return the folders of the context as options."""
    return [f"-I{folder if folder == '.' else './' + folder}" for folder in context.search]


def place_of(name: str) -> str:
    """Return a file as the shadow tree names it, from the spelling of a diagnostic."""
    parts: list[str] = []
    for part in name.split("/"):
        if part == ".." and parts:
            parts.pop()
        elif part not in (".", ".."):
            parts.append(part)
    return "/".join(parts)


def unmuted(data: bytes) -> bytes:
    """
    Return the bytes with what mutes a compiler or moves its lines blanked, on the same lines.

    Such are the pragmas `diagnostic` and `system_header`, also as an operator (as well as one that a macro makes of its
    argument, which may be any), and line directives.
    """
    return OPERATOR.sub(_blank, DIRECTIVE.sub(_blank, data))


def _blank(match: re.Match[bytes]) -> bytes:
    return NOT_LAYOUT.sub(b" ", match[0])
