"""Keys over arguments: equal content, equal key; anything else, another."""

from __future__ import annotations

import dataclasses
import datetime
import enum
import os
import threading
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors.content_key import Unkeyable, content_key

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.dates()
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=4).map(tuple)
        | st.dictionaries(st.text(max_size=3) | st.integers(), inner, max_size=4)
        | st.frozensets(st.integers() | st.text(max_size=3), max_size=4)
    ),
    max_leaves=12,
)


@dataclasses.dataclass
class Point:
    """Two numbers."""

    x: int
    y: int


class Other(msgspec.Struct):
    """The same fields, another type."""

    x: int
    y: int


class Colour(enum.IntEnum):
    """A number that is not its number."""

    RED = 1


def _again(value: Any) -> Any:
    """Return an equal value built anew, dicts and sets in the opposite order."""
    match value:
        case list() | tuple():
            return type(value)(_again(item) for item in value)
        case dict():
            return {_again(key): _again(item) for key, item in reversed(list(value.items()))}
        case frozenset():
            return frozenset(reversed(list(value)))
    return value


def _exact(value: Any) -> Any:
    """Return a form that compares as types do, not as numbers do."""
    match value:
        case list() | tuple():
            return type(value).__name__, [_exact(item) for item in value]
        case dict():
            return "dict", sorted((repr(key), _exact(item)) for key, item in value.items())
        case frozenset():
            return "frozenset", sorted(map(repr, value))
    return type(value).__name__, repr(value)


@settings(deadline=None)
@given(VALUES)
def test_equal_content_has_an_equal_key(value: Any) -> None:
    """When this fails, what was computed is computed again."""
    assert content_key(_again(value)) == content_key(value)


@settings(max_examples=300, deadline=None)
@given(VALUES, VALUES)
def test_different_content_or_type_has_another_key(one: Any, two: Any) -> None:
    """When this fails, an execution is answered with the result of another."""
    assert (content_key(one) == content_key(two)) == (_exact(one) == _exact(two))


@settings(deadline=None)
@given(st.binary(min_size=1, max_size=64), st.data())
def test_one_changed_byte_gives_another_key(content: bytes, data: st.DataObject) -> None:
    """When this fails, a changed file or array is answered as before."""
    place = data.draw(st.integers(0, len(content) - 1))
    changed = bytearray(content)
    changed[place] ^= data.draw(st.integers(1, 255))

    for form in (bytes, bytearray, lambda raw: np.frombuffer(bytes(raw), np.uint8)):
        assert content_key(form(content)) != content_key(form(bytes(changed)))
        assert content_key(form(content)) == content_key(form(content))


@pytest.mark.parametrize(
    "values",
    [
        (1, 1.0, True, "1", b"1", Colour.RED, np.int64(1), [1], (1,), {1}, frozenset({1}), {1: None}),
        (0.0, -0.0, 0, False, None, "", b"", [], (), {}, set()),
        (["ab"], ["a", "b"], [["a"], "b"], ["a", ["b"]], [("a", "b")]),
        (Point(1, 2), Other(1, 2), (1, 2), {"x": 1, "y": 2}, Point(2, 1)),
        (datetime.date(2026, 1, 1), datetime.datetime(2026, 1, 1), "2026-01-01", datetime.timedelta(1)),
        (np.zeros(4, np.int32), np.zeros(2, np.int64), np.zeros((2, 2), np.int32), np.zeros(4, np.float32)),
        (np.array([1, "a"], dtype=object), np.array(["1", "a"], dtype=object), np.array([1, 2])),
        (
            pd.DataFrame({"a": [1, 2]}),
            pd.DataFrame({"b": [1, 2]}),
            pd.DataFrame({"a": [1, 2]}, index=[1, 2]),
            pd.DataFrame({"a": [1.0, 2.0]}),
            pd.DataFrame({"a": ["1", "2"]}),
            pd.Series([1, 2], name="a"),
            pd.Index([1, 2]),
        ),
    ],
)
def test_what_looks_alike_is_told_apart(values: tuple[Any, ...]) -> None:
    """When this fails, a detector that tells two types apart gets the other's result."""
    assert len({content_key(value) for value in values}) == len(values)
    assert [content_key(value) for value in values] == [content_key(value) for value in values]


def test_paths_stand_for_their_content(tmp_path: Path) -> None:
    """When this fails, a detector is not run on a file that changed under the same name."""
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_bytes(b"same")
    two.write_bytes(b"same")
    before = content_key(one)

    assert content_key(one, path_in_key=False) == content_key(two, path_in_key=False)
    assert content_key(one) != content_key(two)
    one.write_bytes(b"sane")
    assert content_key(one) != before
    assert content_key(str(one)) == content_key(str(one)) != content_key(one)


def test_folders_stand_for_their_tree(tmp_path: Path) -> None:
    """When this fails, a changed file deep in a folder goes unseen."""
    deep = tmp_path / "a" / "b"
    deep.mkdir(parents=True)
    (deep / "file").write_text("x")
    (tmp_path / "link").symlink_to("a")
    keys = [content_key(tmp_path)]
    for change in (
        lambda: (deep / "file").write_text("y"),
        lambda: (deep / "file").rename(deep / "renamed"),
        (deep / "empty").mkdir,
        lambda: ((tmp_path / "link").unlink(), (tmp_path / "link").symlink_to("b")),
    ):
        change()
        keys.append(content_key(tmp_path))

    assert len(set(keys)) == 5


def test_what_has_no_content_cannot_be_keyed(tmp_path: Path) -> None:
    """When this fails, a result is kept under a key that says nothing of its arguments."""
    loop: list[Any] = []
    loop.append(loop)
    os.mkfifo(tmp_path / "fifo")
    deep: Any = 0
    for _ in range(200):
        deep = [deep]

    for value in (object(), object, threading.Lock(), iter(()), len, loop, deep, tmp_path / "fifo", tmp_path / "none"):
        with pytest.raises(Unkeyable):
            content_key([value])
