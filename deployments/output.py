"""
What commands print and write: nothing that a scanned tree, a ledger or a policy says drives the terminal, and no file
that is there is written over.
"""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from detectors.errors import UsageError

__all__ = ["plain", "print_answer", "print_bytes", "write_new"]


def plain(text: str) -> str:
    """Return one line of text with its control characters escaped, line ends among them."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def print_answer(shown: Mapping[str, Any], lines: Iterable[str], *, json: bool) -> None:
    """
    Print the answer of a command.

    Args:
        shown: Of the one JSON object.
        lines: For people; each is made `plain`.
        json: Which of the two.
    """
    if json:
        import msgspec

        print_bytes(msgspec.json.encode(shown) + b"\n")
    else:
        print_bytes("".join(f"{plain(line)}\n" for line in lines).encode("utf-8", "backslashreplace"))


def print_bytes(data: bytes) -> None:
    """Write to standard output, after what was printed before."""
    sys.stdout.flush()
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def write_new(file: Path, data: bytes, *, mode: int = 0o644) -> None:
    """
    Write a file that is not there, whole or not at all.

    Args:
        file: Its place.
        data: Its content.
        mode: Its permissions; 0o600 for what speaks for somebody.

    Raises:
        UsageError: It is there, or cannot be written.
    """
    draft = file.with_name(f".{file.name}.{secrets.token_hex(8)}")
    try:
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
        with os.fdopen(descriptor, "wb") as opened:
            opened.write(data)
            opened.flush()
            os.fsync(opened.fileno())
        os.link(draft, file)
    except FileExistsError as problem:
        raise UsageError(f"{file} exists; name a new file") from problem
    except OSError as problem:
        raise UsageError(f"{file} cannot be written: {problem.strerror}") from problem
    finally:
        draft.unlink(missing_ok=True)
