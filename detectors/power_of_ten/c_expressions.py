"""Expressions of C as text: brackets and operators outside of them, for rules that look at a condition's parts."""

from __future__ import annotations

import functools
import re

__all__ = ["closing", "split", "unwrapped"]

MAX_DEPTH = 20
"""Brackets around a whole expression that are taken off."""
PARENTHESIS = re.compile(rb"[()]")


def closing(code: bytes, opening: int, end: int | None = None) -> int | None:
    """Return where the parenthesis at `opening` is closed, before `end`; `None` if it is not."""
    depth = 0
    for match in PARENTHESIS.finditer(code, opening, len(code) if end is None else end):
        depth += 1 if match[0] == b"(" else -1
        if depth == 0:
            return match.start()
    return None


def unwrapped(text: bytes) -> bytes:
    """Return an expression without white space and parentheses around the whole of it."""
    text = text.strip()
    for _ in range(MAX_DEPTH):
        if not text.startswith(b"(") or closing(text, 0) != len(text) - 1:
            break
        text = text[1:-1].strip()
    return text


def split(text: bytes, operator: bytes) -> list[bytes]:
    """Return the parts of an expression between the occurrences of `operator` outside of brackets."""
    if operator not in text:
        return [text]
    parts, depth, begin = [], 0, 0
    for match in _splitter(operator).finditer(text):
        if match[0] == operator:
            if depth == 0:
                parts.append(text[begin : match.start()])
                begin = match.end()
        else:
            depth += 1 if match[0] in b"([{" else -1
    return [*parts, text[begin:]]


@functools.cache
def _splitter(operator: bytes) -> re.Pattern[bytes]:
    return re.compile(rb"[(\[{]|[)\]}]|" + re.escape(operator))
