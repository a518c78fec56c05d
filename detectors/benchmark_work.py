"""
What benchmarks run: real files, and functions that processes and Dask workers find by name.

The sources are hash-pinned source distributions, fetched as the demo fetches them; nothing of theirs is run.
"""

from __future__ import annotations

import builtins
import functools
import hashlib
import keyword
import re
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import msgspec

from detectors.detector import RuleGroup, discover
from detectors.errors import UsageError
from detectors.execution import DetectorConfig
from detectors.model import Language
from detectors.parsing import Unparsable, parse

__all__ = ["RULES", "Work", "calibrated", "digest_of", "findings_in", "grown", "nothing", "spin"]

RULES = ("power-of-ten-c", "power-of-ten-python")
LANGUAGES: dict[str, Language] = {".c": "c", ".h": "c", ".py": "python"}
LARGEST_BYTES = 200_000
"""Larger files would decide alone."""
LEAST_FILES = 8
LEAST_BYTES = 500
"""Shorter ones have too few words to give each copy content of its own."""
IMPORTS = (b"#include", b"# include", b"import ", b"from ")
KEPT = (
    frozenset(
        b"define defined ifndef pragma include continue default double extern return signed sizeof static struct "
        b"switch typedef unsigned volatile inline restrict _Static_assert malloc calloc realloc strcpy strncpy strcat "
        b"sprintf snprintf printf fprintf memcpy memset strlen strcmp setjmp longjmp size_t uint8_t uint16_t "
        b"uint32_t uint64_t __future__ annotations subprocess".split()
    )
    | frozenset(word.encode() for word in keyword.kwlist)
    | frozenset(word.encode() for kind in (builtins, str, bytes, list, dict, set) for word in dir(kind))
)
"""Keywords, and names that rules and tools know, so that a copy gives as much work as its original."""
WORD = re.compile(rb"[A-Za-z_]\w{5,}")

BLOCK = bytes(range(256)) * 8
"""Short enough that zlib keeps the interpreter's lock."""


def nothing(number: int = 0) -> int:
    """Return what it is given: what is left is the pool's own time."""
    return number


def spin(rounds: int) -> int:
    """
    Keep one processor busy for `rounds` checksums of 2 kB, holding the interpreter's lock.

    A loop of byte code would not do: equal processes run it at speeds up to 15 % apart, as their addresses fall, and
    these checksums within 2 %.
    """
    if rounds < 0:
        raise UsageError(f"rounds are counted from 0, not {rounds}")
    value = 1
    for _ in range(rounds):
        value = zlib.crc32(BLOCK, value)
    assert 0 <= value < 1 << 32, "a checksum has 32 bits"
    return value


def calibrated(seconds: float) -> int:
    """Return the rounds of `spin` that take `seconds` of processor time here: the median of several tries."""
    if not seconds > 0:
        raise UsageError(f"work takes some time, not {seconds} s")
    probe = 20_000
    rates = []
    for _ in range(7):
        clock = time.thread_time()
        _ = spin(probe)
        rates.append((time.thread_time() - clock) / probe)
    return max(1, round(seconds / sorted(rates)[len(rates) // 2]))


def digest_of(data: bytes, rounds: int) -> str:
    """Hash a real file's content so often, which lets go of the interpreter's lock, and return the digest."""
    if rounds < 1 or not data:
        raise UsageError("something is hashed, once at least")
    digest = hashlib.sha256()
    for _ in range(rounds):
        digest.update(data)
    found = digest.hexdigest()
    assert len(found) == 64, "256 bits"
    return found


def findings_in(path: str, language: Language) -> int:
    """Read a file, run the rules of its language, and return the number of findings; -1 where it cannot be parsed."""
    with open(path, "rb") as file:  # noqa: PTH123  # a Path costs what is measured here
        data = file.read()
    try:
        report = _rules(language).check_file(parse(data, language, path.rpartition("/")[2]))
    except Unparsable:
        return -1
    assert 0 <= report.understood <= 1, "a share"
    return len(report.findings)


@functools.lru_cache(maxsize=4)
def _rules(language: Language) -> RuleGroup:
    assert language in LANGUAGES.values(), "there are rules for these"
    group = discover()[f"power-of-ten-{language}"]
    assert isinstance(group, RuleGroup), "the rules are a group"
    return group


class Work(msgspec.Struct, frozen=True):
    """
    What a dimension measures on.

    Raises:
        UsageError: The sources hold too few files to measure on.
    """

    sources: Path
    """Trees of C and Python, nothing else."""
    scratch: Path
    """Empty, on a real disk; removed at the end."""
    workers: int
    budget_s: float
    """What the dimension may take."""
    sizes: tuple[int, ...] = (1_000, 10_000)
    """Files of the trees on which growth is measured."""

    def __post_init__(self) -> None:
        if self.workers < 1 or not self.budget_s > 0:
            raise UsageError("a benchmark needs a worker and time")
        if not self.sources.is_dir() or len(self.files(LEAST_FILES)) < LEAST_FILES:
            raise UsageError(
                f"{self.sources} holds no sources to measure on: at least {LEAST_FILES} files of C or Python "
                "(`make corpus` fetches the pinned ones)"
            )

    def files(self, most: int) -> list[Path]:
        """Return at most so many files, spread evenly over all of 500 bytes to 200 kB, in a fixed order."""
        if most < 1:
            raise UsageError(f"at least one file is measured on, not {most}")
        found = sorted(
            path
            for path in self.sources.rglob("*")
            if path.suffix in LANGUAGES and path.is_file() and not path.is_symlink()
            and LEAST_BYTES <= path.stat().st_size <= LARGEST_BYTES
        )  # fmt: skip
        chosen = found[:: max(1, len(found) // most)][:most]
        assert len(chosen) <= most, "no more than asked for"
        return chosen

    def calls(self, detector: str, most: int) -> list[DetectorConfig]:
        """Return an execution of `findings_in` under a detector's name for each of at most so many files."""
        assert detector, "a detector has a name"
        chosen = self.files(most)
        assert len(chosen) <= most, "no more than asked for"
        return [(detector, (str(path), LANGUAGES[path.suffix]), {}) for path in chosen]

    def tree(self, name: str, files: int) -> Path:
        """Return a new tree below the scratch folder with this many files, all of distinct content; see `grown`."""
        folder = self.scratch / name
        # Equal files, and files without words that can be renamed, would be found in a cache of contents.
        distinct: dict[bytes, Path] = {}
        for path in reversed(self.files(files)):
            data = path.read_bytes()
            if len({data, _renamed(data, 1), _renamed(data, 2)}) == 3:
                distinct[hashlib.sha256(data).digest()] = path
        made = sum(1 for _ in grown(sorted(distinct.values()), folder, files))
        assert made == files, "as many as were asked for"
        assert folder.is_dir(), "a tree is a folder"
        return folder

    def place(self, name: str) -> Path:
        """Return a new, empty folder below the scratch folder."""
        assert name, "a folder has a name"
        folder = self.scratch / name
        folder.mkdir(parents=True)
        assert folder.is_absolute(), "commands run elsewhere, too"
        assert not any(folder.iterdir()), "it is new"
        return folder


def grown(originals: list[Path], folder: Path, files: int) -> Iterator[Path]:
    """
    Write a tree of any size out of real files, each with content of its own.

    Copies stand in folders of a hundred. The first copy of a file is the file; in each further one, every word of six
    letters and more that is no keyword keeps its length and its class of characters, and gets other letters at its
    end, the same for the same word in one copy. So sizes and the distribution of tokens stay, names do not clash, and
    nothing is found in a cache of contents by being equal.

    Args:
        originals: Real files.
        folder: New.
        files: How many to write.

    Yields:
        Each file that was written.

    Raises:
        UsageError: No originals, or a folder that is there.
    """
    if not originals or files < 1:
        raise UsageError("a tree is grown from files, to at least one")
    if folder.exists():
        raise UsageError(f"{folder} is there; a tree is grown into a new folder")
    for number in range(files):
        copy, place = divmod(number, len(originals))
        original = originals[place]
        data = original.read_bytes()
        target = folder / f"{number // 100:04}" / f"{original.stem}_{number}{original.suffix}"
        target.parent.mkdir(parents=True, exist_ok=True)
        changed = _renamed(data, copy) if copy else data
        assert len(changed) == len(data), "its size stays"
        written = target.write_bytes(changed)
        assert written == len(data), "whole"
        yield target


def _renamed(data: bytes, copy: int) -> bytes:
    """Return a source with its longer words renamed, but for those that a language or another file gives meaning."""
    assert copy > 0, "the first copy is the file"
    lines = data.split(b"\n")
    foreign = {word for line in lines if line.lstrip().startswith(IMPORTS) for word in WORD.findall(line)}
    known: dict[bytes, bytes] = {word: word for word in KEPT | foreign}

    def other(match: re.Match[bytes]) -> bytes:
        word = match.group()
        assert len(word) >= 6, "shorter words stay"
        if word not in known:
            tail = hashlib.sha256(b"%d %s" % (copy, word)).digest()
            known[word] = word[:-3] + bytes(97 + one % 26 for one in tail[:3])
        return known[word]

    changed = WORD.sub(other, data)
    assert len(changed) == len(data), "its size stays"
    assert changed.count(b"\n") == data.count(b"\n"), "a line stays a line"
    return changed
