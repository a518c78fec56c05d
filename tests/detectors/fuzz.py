"""Mutated source files for the rules: no input may crash them, hang them, or get two different answers."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from detectors.detector import RuleGroup, discover
from detectors.model import Language
from detectors.parsing import Unparsable, parse

ROOT = Path(__file__).parents[2]
LONGEST_S = 10.0
LARGEST = 40_000
PIECES = (
    *(
        b"{",
        b"}",
        b"(",
        b")",
        b"[",
        b"]",
        b";",
        b":",
        b"#if 0\n",
        b"#else\n",
        b"#endif\n",
        b"#define X ",
        b"\\\n",
        b'"',
        b"'",
    ),
    *(
        b"/*",
        b"*/",
        b"//",
        b"->",
        b"**",
        b"goto ",
        b"while (",
        b"for (;;) ",
        b"do ",
        b"\0",
        b"\xff",
        b"\r",
        b"\t",
        b"    ",
    ),
    *(
        b"def f(x):\n",
        b"class A:\n",
        b"lambda: ",
        b"if x:\n",
        b"else:\n",
        b"async ",
        b"\n",
        b'R"(',
        b"p10: ignore[R1] ",
    ),
)


def sources() -> list[tuple[str, Language, bytes]]:
    """Return (name, language, bytes) of files of this repository, and of the fetched packages where they are there."""
    places = (ROOT / "tests" / "corpus" / "made", ROOT / "examples", ROOT / "detectors", ROOT / ".demo" / "sources")
    languages: dict[str, Language] = {".c": "c", ".h": "c", ".cpp": "cpp", ".py": "python"}
    found = []
    for path in sorted(path for place in places for path in place.rglob("*") if path.suffix in languages):
        if path.is_file() and not path.is_symlink() and path.stat().st_size < LARGEST:
            found.append((path.name, languages[path.suffix], path.read_bytes()))
    return found


def mutated(seed: int, count: int) -> Iterator[tuple[str, Language, bytes]]:
    """Yield files with pieces cut out, repeated, moved from another file, or put in."""
    chooser = random.Random(seed)
    known = sources()
    for _ in range(count):
        name, language, data = chooser.choice(known)
        for _ in range(chooser.randint(1, 6)):
            at, length = chooser.randrange(len(data) + 1), chooser.randint(0, 200)
            other = chooser.choice(known)[2]
            start = chooser.randrange(len(other) + 1)
            put = chooser.choice((b"", chooser.choice(PIECES) * chooser.randint(1, 40), other[start : start + length]))
            data = data[:at] + put + data[at + chooser.choice((0, length)) :]
        yield name, language, data


def problem_of(name: str, language: Language, data: bytes) -> str | None:
    """Return what went wrong with one input; `None` if each group answered twice the same, in time."""
    groups = [group for group in discover() if isinstance(group, RuleGroup) and language in group.languages]
    began = time.perf_counter()
    for group in groups:
        if group.name.startswith("power-of-ten") and _answer(group, name, language, data) != _answer(
            group, name, language, data
        ):
            return "two answers"
    spent = time.perf_counter() - began
    return f"{spent:.1f} s" if spent > LONGEST_S else None


def _answer(group: RuleGroup, name: str, language: Language, data: bytes) -> bytes:
    try:
        report = group.check_file(parse(data, language, name))
    except Unparsable as answer:
        return answer.reason.encode()
    facts = {fact: {name: msgspec.msgpack.decode(packed)} for fact, packed in report.facts.items()}
    return msgspec.msgpack.encode((report, [(path, finding) for path, finding in group.check_tree(facts)]))
