"""Expressions of C as text: brackets and operators outside of them, for rules that look at a condition's parts."""

from __future__ import annotations

import re

__all__ = ["closing", "split", "unwrapped"]

MAX_DEPTH = 20
"""Brackets around a whole expression that are taken off."""
PARENTHESIS = re.compile(rb"[()]")
SPLITTERS = {operator: re.compile(rb"[(\[{]|[)\]}]|" + re.escape(operator)) for operator in (b",", b"||", b"&&")}


def closing(code: bytes, opening: int, end: int | None = None) -> int | None:
    """Return where the parenthesis at `opening` is closed, before `end`; `None` if it is not, or there is none."""
    if code[opening : opening + 1] != b"(":
        return None
    depth = 0
    for match in PARENTHESIS.finditer(code, opening, len(code) if end is None else end):
        depth += 1 if match[0] == b"(" else -1
        if depth == 0:
            return match.start()
    assert depth >= 0, "no more are closed than were opened"
    return None


def unwrapped(text: bytes) -> bytes:
    """Return an expression without white space and parentheses around the whole of it."""
    text = text.strip()
    for _ in range(MAX_DEPTH):
        if not text.startswith(b"(") or closing(text, 0) != len(text) - 1:
            break
        text = text[1:-1].strip()
    assert text == text.strip(), "no white space is around it"
    return text


def split(text: bytes, operator: bytes) -> list[bytes]:
    """Return the parts of an expression between the occurrences of `operator` outside of brackets."""
    assert operator in SPLITTERS, "others are not asked for"
    if operator not in text:
        return [text]
    parts, depth, begin = [], 0, 0
    for match in SPLITTERS[operator].finditer(text):
        if match[0] == operator:
            if depth == 0:
                parts.append(text[begin : match.start()])
                begin = match.end()
        else:
            depth += 1 if match[0] in b"([{" else -1
    parts.append(text[begin:])
    assert sum(map(len, parts)) == len(text) - len(operator) * (len(parts) - 1), "parts and operators are the whole"
    return parts
