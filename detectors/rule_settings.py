"""
What an operator may set about the rules; handed to every rule when it is made, and part of the cache key.

It is read from a file that the operator names, never from the scanned tree, whose author must not choose how it is
judged.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from detectors.errors import UsageError

__all__ = ["RuleSettings", "read_settings", "settings_from"]

TABLE = ("tool", "detector-pool")
MAX_FILE_BYTES = 1 << 20


class RuleSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, rename="kebab"):
    """
    Limits and vocabulary of the rules; the defaults are those of the paper.

    All collections are tuples, so that settings can be hashed and compared. In a file the names have dashes.
    """

    function_lines: int = 60
    """Rule 4: most physical lines of a function."""
    assertions_per_function: float = 2.0
    """Rule 5: fewest assertions a function, on average in a file."""
    assertions: tuple[str, ...] = ()
    """Rule 5: further functions and macros that assert."""
    initialisation_words: tuple[str, ...] = ("init", "initialise", "initialize", "setup")
    """Rule 3: a function that has one of these as a whole word of its name initialises."""
    initialisation_functions: tuple[str, ...] = ()
    """Rule 3: further functions that initialise, by their whole name."""
    include_folders: tuple[str, ...] = ()
    """Rule 10: absolute paths of folders outside of the tree in which compilers look for headers, such as Python's."""
    select: tuple[str, ...] = ()
    """Prefixes of rule ids that are run, such as `P10-R2`; empty for all."""
    ignore: tuple[str, ...] = ()
    """Prefixes of rule ids that are not run."""

    def __post_init__(self) -> None:
        """Refuse limits that no function could keep, and folders that mean another place on each machine."""
        if self.function_lines < 1:
            raise ValueError(f"function-lines is at least 1, not {self.function_lines}")
        if not 0 <= self.assertions_per_function < math.inf:
            raise ValueError(f"assertions-per-function is at least 0, not {self.assertions_per_function}")
        if relative := [folder for folder in self.include_folders if not folder.startswith("/")]:
            raise ValueError(f"include-folders takes absolute paths, not {relative[0]!r}")

    def runs(self, rule: str) -> bool:
        """Tell whether a rule is selected: the longest prefix of its id that `select` or `ignore` names decides."""
        assert rule, "the empty id would be selected by no prefix and by all"
        if not self.select and not self.ignore:
            return True
        wanted = max((len(prefix) for prefix in self.select if rule.startswith(prefix)), default=-1)
        unwanted = max((len(prefix) for prefix in self.ignore if rule.startswith(prefix)), default=-1)
        return wanted > unwanted or (not self.select and unwanted < 0)


def read_settings(file: Path) -> RuleSettings:
    """
    Read `[tool.detector-pool]` of a `pyproject.toml`, or a file that holds nothing but these settings.

    Raises:
        UsageError: The file cannot be read, is too large, is no TOML, or holds a key or value that is not known.
    """
    import tomllib

    try:
        if file.stat().st_size > MAX_FILE_BYTES:
            raise UsageError(f"the configuration {file} is larger than {MAX_FILE_BYTES} bytes")
        with file.open("rb") as opened:
            content = tomllib.loads(opened.read(MAX_FILE_BYTES).decode("utf-8"))
    except OSError as problem:
        raise UsageError(f"the configuration {file} cannot be read: {problem.strerror}") from problem
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as problem:
        raise UsageError(f"the configuration {file} is no TOML: {problem}") from problem
    table: Any = content
    if file.name == "pyproject.toml" or TABLE[0] in content:
        for name in TABLE:
            table = table.get(name, {}) if isinstance(table, dict) else {}
    if not isinstance(table, dict):
        raise UsageError(f"{file}: [tool.detector-pool] must be a table")
    return settings_from(table, str(file))


def settings_from(table: Mapping[str, Any], where: str) -> RuleSettings:
    """
    Make settings of plain data.

    Raises:
        UsageError: An unknown key (the nearest is suggested), or a value of a wrong type or out of its range.
    """
    assert where, "whoever reads the error must find the file"
    known = [field.encode_name for field in msgspec.structs.fields(RuleSettings)]
    if unknown := [key for key in table if key not in known]:
        import difflib

        near = difflib.get_close_matches(unknown[0].replace("_", "-"), known, n=1, cutoff=0.4)
        hint = f"; did you mean {near[0]!r}?" if near else f"; known are {', '.join(known)}"
        raise UsageError(f"{where}: unknown key {unknown[0]!r}{hint}")
    try:
        return msgspec.convert(dict(table), RuleSettings)
    except msgspec.ValidationError as problem:
        raise UsageError(f"{where}: {problem}") from problem
