"""What an operator may set about the rules; handed to every rule when it is made, and part of the cache key."""

from __future__ import annotations

import msgspec

__all__ = ["RuleSettings"]


class RuleSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """
    Limits and vocabulary of the rules; the defaults are those of the paper.

    All collections are tuples, so that settings can be hashed and compared.
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
    select: tuple[str, ...] = ()
    """Prefixes of rule ids that are run, such as `P10-R2`; empty for all."""
    ignore: tuple[str, ...] = ()
    """Prefixes of rule ids that are not run."""
