"""
Bytes to a `ParsedFile`, once a file: decoding, positions, and the parse of the file's language.

`parse` picks the language's class; `c_parsing` and `python_parsing` hold what is particular to each. Whatever the
bytes are, `parse` returns or raises `Unparsable`; it never runs or imports anything of the scanned tree.
"""

from __future__ import annotations

import bisect
import contextlib
import functools
import gc
import io
import itertools
import tokenize
from collections.abc import Iterator, Sequence

from detectors.model import Language, Reason, Region

__all__ = ["ParsedFile", "Unparsable", "collector_paused", "decode", "looks_binary", "parse"]

MAX_PARSE_BYTES = 64 << 20
"""Larger files become *not analysed*: tree-sitter needs some ten times the file in memory."""
BLOCK_BYTES = 4096
CONTINUATION_BYTES = bytes(range(0x80, 0xC0))


class Unparsable(Exception):  # an answer about the file, not a failure of ours
    """The file cannot be parsed; becomes a `NotAnalysed` with this reason."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail


class ParsedFile:
    """One decoded file. Subclasses add the syntax tree of their language, made on first use."""

    def __init__(self, data: bytes, language: Language, name: str = "") -> None:
        self.data = data
        self.language = language
        self.name = name
        """Base name, for rules that treat headers apart; never the whole path, so that results can be shared."""
        self.text = decode(data, language)

    @functools.cached_property
    def source(self) -> bytes:
        """The text as UTF-8: what syntax trees and byte offsets refer to."""
        return self.text.encode("utf-8", "surrogatepass")

    @functools.cached_property
    def line_starts(self) -> Sequence[int]:
        """Offset in `source` of each line's first byte; lines end at `\\n` only, as compilers and editors count."""
        ends = list(itertools.accumulate(map(len, io.BytesIO(self.source)), initial=0))
        return ends if self.source.endswith(b"\n") or not self.source else ends[:-1]

    @property
    def understood(self) -> float:
        """Share of the bytes outside of syntax errors, 0 to 1."""
        return 1.0

    def line(self, number: int) -> str:
        """Return the text of a line (from 1), without its end; empty when there is no such line."""
        starts = self.line_starts
        if not 1 <= number <= len(starts):
            return ""
        end = starts[number] if number < len(starts) else len(self.source)
        return self.source[starts[number - 1] : end].decode("utf-8", "replace").rstrip("\r\n")

    def region(self, start: int, end: int) -> Region:
        """Return the region of the bytes `start` to `end` (exclusive) of `source`."""
        return Region(*self.positions(start, end))

    def positions(self, start: int, end: int) -> tuple[int, int, int, int]:
        """Return what `region` holds, as a tuple: line and column from 1, and those of the end."""
        starts = self.line_starts
        line = last = bisect.bisect_right(starts, start)
        begin = starts[line - 1]
        if not begin <= end < (starts[line] if line < len(starts) else len(self.source)):
            last = bisect.bisect_right(starts, end)
        if self._one_byte_each:
            return line, start - begin + 1, last, end - starts[last - 1] + 1
        column = self._characters(start) - self._characters(begin) + 1
        return line, column, last, self._characters(end) - self._characters(starts[last - 1]) + 1

    def line_of(self, offset: int) -> int:
        """Return the number of the line, from 1, that an offset in `source` lies in."""
        return bisect.bisect_right(self.line_starts, offset)

    @functools.cached_property
    def _one_byte_each(self) -> bool:
        return len(self.text) == len(self.source)

    def _characters(self, offset: int) -> int:
        """Count the code points before `offset` in constant time, since a line may be megabytes long."""
        block = offset // BLOCK_BYTES
        return self._characters_before[block] + _code_points(self.source[block * BLOCK_BYTES : offset])

    @functools.cached_property
    def _characters_before(self) -> Sequence[int]:
        """Code points before each block of `source`."""
        blocks = (self.source[start : start + BLOCK_BYTES] for start in range(0, len(self.source), BLOCK_BYTES))
        return [0, *itertools.accumulate(_code_points(block) for block in blocks)]


def _code_points(data: bytes) -> int:
    return len(data.translate(None, CONTINUATION_BYTES))


@contextlib.contextmanager
def collector_paused() -> Iterator[None]:
    """
    Pause the collector of cyclic garbage while one file is parsed and looked at.

    A tree is a hundred thousand objects of which none is garbage before the file is done; the collector would look at
    them time and again. Threads may pause it at once: whoever found it on turns it on again, so it never stays off.
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def parse(data: bytes, language: Language, name: str = "") -> ParsedFile:
    """
    Parse one file.

    Args:
        data: The file's bytes, at most `MAX_PARSE_BYTES`.
        language: As the snapshot saw it.
        name: Base name.

    Raises:
        Unparsable: Too large, or binary under a source file's name.
    """
    if len(data) > MAX_PARSE_BYTES:
        raise Unparsable("too-large", f"{len(data)} bytes, at most {MAX_PARSE_BYTES} are parsed")
    if looks_binary(data):
        raise Unparsable("parse-error", "binary content under the name of a source file")
    if language in ("c", "cpp"):
        from detectors.c_parsing import CFile

        return CFile(data, language, name)
    if language == "python":
        from detectors.python_parsing import PythonFile

        return PythonFile(data, language, name)
    return ParsedFile(data, language, name)


def looks_binary(data: bytes) -> bool:
    """Tell whether bytes are no text: a NUL in the first 8,000 (git's test), unless a UTF-16 or UTF-32 mark leads."""
    return not data.startswith((b"\xff\xfe", b"\xfe\xff")) and b"\0" in data[:8000]


def decode(data: bytes, language: Language) -> str:
    """Decode by byte-order mark, Python's declared encoding (PEP 263), UTF-8, then Latin-1, which cannot fail."""
    encodings = []
    if data.startswith((b"\xff\xfe\0\0", b"\0\0\xfe\xff")):
        encodings.append("utf-32")
    elif data.startswith((b"\xff\xfe", b"\xfe\xff")):
        encodings.append("utf-16")
    elif language == "python":
        try:
            encodings.append(tokenize.detect_encoding(io.BytesIO(data).readline)[0])
        except (SyntaxError, UnicodeDecodeError):
            encodings.append("utf-8-sig")
    for encoding in [*encodings, "utf-8-sig"]:
        try:
            return data.decode(encoding)
        except (UnicodeError, LookupError):  # the codec `undefined` raises the wider one
            continue
    return data.decode("latin-1")
