"""
Reports of a live monitor: one format, one file. A module with `NAME` and `write(record, file)` is found by walking.

OSCAL comes in as `oscal.py` here, beside the others; nothing else has to change.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
import sys
from pathlib import Path

import msgspec

from compliance.errors import EvidenceError
from compliance.live_record import LiveRecord
from detectors.errors import UsageError

__all__ = ["write_all"]


def write_all(record: LiveRecord, folder: Path) -> tuple[Path, ...]:
    """
    Write every format; each file appears whole or not at all, in the place of the one before.

    Raises:
        EvidenceError: The folder cannot be written.
    """
    if folder.exists() and not folder.is_dir():
        raise EvidenceError(f"the report {folder} cannot be written: it is no folder")
    written: list[Path] = []
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for info in pkgutil.iter_modules(__path__, f"{__name__}."):
            module = importlib.import_module(info.name)
            if not hasattr(module, "write"):
                continue
            file = folder / module.NAME
            draft = file.with_name(f".{file.name}.{os.getpid()}")
            module.write(record, draft)
            written.append(draft.replace(file))
    except OSError as problem:
        raise EvidenceError(f"the report {folder} cannot be written: {problem.strerror}") from problem
    assert written, "there are formats"
    assert len(set(written)) == len(written), "no two formats write the same file"
    return tuple(written)


def serve() -> None:
    """Write what standard input holds to the folder that the first argument names: a process of its own does it."""
    if len(sys.argv) != 2:
        raise UsageError("python -m compliance.live_formats FOLDER, with a record on standard input")
    record = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=LiveRecord)
    assert record.looks >= len(record.samples), "each sample is a look"
    _ = write_all(record, Path(sys.argv[1]))
