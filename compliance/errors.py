"""
Errors of the proof, below the engine's base error:

    DetectorPoolError
    └── EvidenceError         exit 3
        ├── EvidenceExists    exit 2   the folder is taken
        └── KeyUnusable       exit 2   the signing key is missing, too open, of another kind, or locked

That evidence does not verify is an answer (`evidence.Verdict`), never an exception.
"""

from __future__ import annotations

from detectors.errors import DetectorPoolError

__all__ = ["EvidenceError", "EvidenceExists", "KeyUnusable"]


class EvidenceError(DetectorPoolError):
    """Evidence cannot be written."""


class EvidenceExists(EvidenceError):
    """The evidence folder exists and is not empty; evidence is never overwritten."""

    exit_code = 2

    def __init__(self, folder: str) -> None:
        super().__init__(folder)
        self.folder = folder

    def __str__(self) -> str:
        return f"{self.folder} exists and is not empty; evidence is never overwritten: name a new folder"


class KeyUnusable(EvidenceError):
    """A key file that must not or cannot be used."""

    exit_code = 2

    def __init__(self, file: str, problem: str) -> None:
        super().__init__(file, problem)
        self.file, self.problem = file, problem

    def __str__(self) -> str:
        return f"the key {self.file} cannot be used: {self.problem}"
