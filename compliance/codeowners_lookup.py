"""
The owners of files by a CODEOWNERS file: a program of its own, which `compliance.owners` runs in the sandbox.

The file comes from a tree that nobody vouches for, and its patterns become regular expressions: one may be made so that
matching it never ends. Here that costs a process that is ended.

Reads `{"text": …, "paths": […]}` from standard input; prints, for each path, its owners parted by spaces.
"""

from __future__ import annotations

import sys

import msgspec

__all__ = ["Asked", "main"]

MAX_BYTES = 64 << 20


class Asked(msgspec.Struct, frozen=True):
    """What the program is given."""

    text: str
    """Of the CODEOWNERS file."""
    paths: tuple[str, ...]
    """From the repository's top folder."""


def main(given: bytes) -> bytes:
    """
    Return the owners as JSON, one text for each path; empty for none.

    Args:
        given: JSON of `Asked`.

    Raises:
        ValueError: A pattern of the file is none, or more is asked than fits.
    """
    if len(given) > MAX_BYTES:
        raise ValueError(f"more than {MAX_BYTES} bytes are asked about")
    from codeowners import CodeOwners

    asked = msgspec.json.decode(given, type=Asked)
    owners = CodeOwners(asked.text)
    told = tuple(" ".join(name for _, name in owners.of(path)) for path in asked.paths)
    assert len(told) == len(asked.paths), "each path has an answer"
    return msgspec.json.encode(told)


if __name__ == "__main__":
    _ = sys.stdout.buffer.write(main(sys.stdin.buffer.read()))
