"""What ruff and mypy say, and what they leave alone."""

import json  # case: P10-R10 violation -- not used
import os


def untyped(a):  # case: P10-R10 violation -- no types
    return a


def shared(items: list[int] = []) -> list[int]:  # case: P10-R10 violation -- a default that is shared
    return items


def lost(text: str) -> int:  # case: P10-R10 clean
    try:
        return int(text)
    except ValueError:
        raise KeyError(text)  # case: P10-R10 violation -- without its cause


def compared(n: int) -> bool:  # case: P10-R10 clean
    assert n >= 0  # case: P10-R10 clean -- assertions are asked for
    return n == None  # case: P10-R10 violation


def wrong(n: int) -> str:  # case: P10-R10 clean
    return n  # case: P10-R10 violation -- not a text


def raw() -> str:  # case: P10-R10 clean
    return "\d"  # case: P10-R10 violation -- an invalid escape


def generic(items: list) -> int:  # case: P10-R10 violation -- a list of what
    return len(items)


def named() -> str:  # case: P10-R10 clean
    unused = 1  # case: P10-R10 violation
    return os.name


def right(values: dict[str, int]) -> int:  # case: P10-R10 clean
    return sum(values.values())
