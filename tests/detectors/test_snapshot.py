"""What the snapshot sees of a tree, and what it says of what it cannot see."""

from __future__ import annotations

import hashlib
import os
import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detectors import snapshot
from detectors.cache import ResultCache
from detectors.errors import SourceChanged, UsageError
from detectors.snapshot import Scope, read_verified, report_path, take_snapshot


def _names(taken: snapshot.Snapshot) -> list[str]:
    return [file.path for file in taken.files]


def _not_analysed(taken: snapshot.Snapshot) -> dict[str, str]:
    return {entry.path: entry.reason for entry in taken.not_analysed}


def test_sees_every_regular_file_with_its_digest(tmp_path: Path) -> None:
    """A file that is missing from the snapshot would be missing from all evidence."""
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "x.c").write_bytes(b"int x;\n")
    (tmp_path / "y.py").write_bytes(b"")

    taken = take_snapshot([tmp_path])

    assert _names(taken) == ["a/b/x.c", "y.py"]
    assert taken.files[0].digest == "sha256:" + hashlib.sha256(b"int x;\n").hexdigest()
    assert (taken.files[0].size_bytes, taken.files[0].language, taken.files[1].language) == (7, "c", "python")


@pytest.mark.parametrize(
    ("name", "content", "language"),
    [
        ("a.h", b"", "c"),
        ("a.CPP", b"", "cpp"),
        ("a.C", b"", "cpp"),
        ("a.hh", b"", "cpp"),
        ("tool", b"#!/usr/bin/env python3\n", "python"),
        ("tool", b"#!/bin/sh\n", "text"),
        ("data", b"\0\1\2", "binary"),
        ("data", b"\xff\xfea\0b\0", "text"),
        ("a.pyi", b"\0", "python"),
    ],
)
def test_tells_the_language_by_suffix_and_first_line(tmp_path: Path, name: str, content: bytes, language: str) -> None:
    """A wrong language means that no detector, or the wrong one, looks at the file."""
    (tmp_path / name).write_bytes(content)

    assert take_snapshot([tmp_path]).files[0].language == language


def test_gitignore_rules_hide_and_are_told(tmp_path: Path) -> None:
    """What an ignore file of the tree hides must be counted, or a tree could hide its faults unseen."""
    (tmp_path / ".gitignore").write_text("# comment\n\n*.o\nbuild/\n[\n!keep.o\n")
    (tmp_path / "build" / "deep").mkdir(parents=True)
    for name in ("a.o", "keep.o", "build/x.c", "build/deep/y.c", "a.c"):
        (tmp_path / name).write_text("")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / ".gitignore").write_text("!*.o\nsecret.c\n")
    (tmp_path / "sub" / "b.o").write_text("")
    (tmp_path / "sub" / "secret.c").write_text("")

    taken = take_snapshot([tmp_path])
    everything = take_snapshot([tmp_path], Scope(ignore=False))

    assert _names(taken) == [".gitignore", "a.c", "keep.o", "sub/.gitignore", "sub/b.o"]
    assert [(entry.path, entry.by, entry.files) for entry in taken.excluded] == [
        ("a.o", ".gitignore:3: *.o", 1),
        ("build/", ".gitignore:4: build/", 2),
        ("sub/secret.c", "sub/.gitignore:2: secret.c", 1),
    ]
    assert len(everything.files) == 9
    assert everything.excluded == ()


def test_a_bad_line_in_an_ignore_file_hides_nothing_and_stops_nothing(tmp_path: Path) -> None:
    """The tree is untrusted: a line that no reader accepts must not end the scan."""
    (tmp_path / ".gitignore").write_bytes(b"!\n/\n\xff\xfe\n[z-a]\n*.o\n")
    (tmp_path / "a.c").write_text("")
    (tmp_path / "a.o").write_text("")

    assert _names(take_snapshot([tmp_path])) == [".gitignore", "a.c"]


def test_include_and_exclude_patterns(tmp_path: Path) -> None:
    """The operator's own scope is obeyed and told."""
    (tmp_path / "src").mkdir()
    (tmp_path / "third").mkdir()
    for name in ("src/a.c", "src/a.txt", "third/b.c"):
        (tmp_path / name).write_text("")

    taken = take_snapshot([tmp_path], Scope(include=("*.c",), exclude=("third/",)))

    assert _names(taken) == ["src/a.c"]
    assert {(entry.path, entry.by) for entry in taken.excluded} == {
        ("src/a.txt", "--include: it matches none of 1"),
        ("third/", "--exclude third/"),
    }


def test_what_is_no_regular_file_becomes_an_entry(tmp_path: Path) -> None:
    """A link, loop, FIFO or socket is never followed, never opened, and never silence."""
    tree, outside = tmp_path / "tree", tmp_path / "outside"
    tree.mkdir()
    outside.mkdir()
    (outside / "secret.c").write_text("")
    (tree / "a.c").write_text("")
    (tree / "inside.c").symlink_to("a.c")
    (tree / "out.c").symlink_to(outside / "secret.c")
    (tree / "out").symlink_to(outside)
    (tree / "dangling").symlink_to("nowhere")
    (tree / "loop").symlink_to("loop")
    (tree / "up").symlink_to(".")
    os.mkfifo(tree / "pipe.c")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tree / "socket"))

        taken = take_snapshot([tree])

    assert _names(taken) == ["a.c"]
    assert _not_analysed(taken) == {
        "out.c": "symlink",
        "out": "symlink",
        "dangling": "symlink",
        "loop": "symlink",
        "pipe.c": "special-file",
        "socket": "special-file",
    }
    assert [(entry.path, entry.by) for entry in taken.excluded] == [
        ("inside.c", "symbolic link to a.c"),
        ("up", "symbolic link to ."),
    ]


def test_hostile_names_stay_apart(tmp_path: Path) -> None:
    """Two files must never share a report path: one of them would be lost."""
    names = [b"a%FF", b"a\xff", "\u00e9.c".encode(), "e\u0301.c".encode(), b"new\nline.c", b"-rf", b"\x1b[31m.py"]
    for name in names:
        Path(os.fsdecode(bytes(tmp_path) + b"/" + name)).write_bytes(name)

    taken = take_snapshot([tmp_path])

    assert len({file.path for file in taken.files}) == len(names)
    assert {file.raw for file in taken.files} == set(names)
    for file in taken.files:
        assert read_verified(str(tmp_path), file) == file.raw


@given(st.lists(st.binary(min_size=1, max_size=12).filter(lambda b: not set(b) & {0, 47}), unique=True, max_size=8))
def test_report_path_is_valid_text_and_reversible_for_names_that_are_not_utf8(names: list[bytes]) -> None:
    """A report path must be valid Unicode for JSON, SARIF and XML, whatever bytes the name has."""
    for name in names:
        path = report_path(name, "")

        path.encode("utf-8")
        try:
            assert path == name.decode("utf-8")
        except UnicodeDecodeError:
            from urllib.parse import unquote_to_bytes

            assert unquote_to_bytes(path) == name


def test_several_roots_get_labels(tmp_path: Path) -> None:
    """Equal paths below two roots must stay apart."""
    for folder in ("x/src", "y/src"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "a.c").write_text("")

    taken = take_snapshot([tmp_path / "x" / "src", tmp_path / "y" / "src"])

    assert _names(taken) == ["src-2/a.c", "src/a.c"]


def test_single_files_share_one_root(tmp_path: Path) -> None:
    """Naming files, as a commit hook does, reports them below their common folder."""
    (tmp_path / "s").mkdir()
    for name in ("s/a.c", "b.c", "c.c"):
        (tmp_path / name).write_text("")

    assert _names(take_snapshot([tmp_path / "s" / "a.c", tmp_path / "b.c"])) == ["b.c", "s/a.c"]
    assert _names(take_snapshot([tmp_path / "s" / "a.c"])) == ["a.c"]
    assert set(_names(take_snapshot([tmp_path / "s", tmp_path / "b.c"]))) == {f"{tmp_path.name}/b.c", "s/a.c"}


def test_usage_errors_name_the_path(tmp_path: Path) -> None:
    """A mistyped path is the user's error, told at once."""
    os.mkfifo(tmp_path / "pipe")

    for paths in ([tmp_path / "missing"], [tmp_path / "pipe"], []):
        with pytest.raises(UsageError):
            take_snapshot(paths)


def test_index_spares_hashing_only_what_surely_did_not_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stale index entry would hand a new file the old file's findings."""
    tree = tmp_path / "tree"
    tree.mkdir()
    old, fresh = tree / "old.c", tree / "fresh.c"
    old.write_text("int a;")
    fresh.write_text("int b;")
    hashed: list[bytes] = []
    real = snapshot.hash_file
    monkeypatch.setattr(snapshot, "hash_file", lambda path: hashed.append(path) or real(path))
    # What was just written is racy; two seconds later (told by moving the margin) it is not.
    with ResultCache(tmp_path / "cache") as cache:
        first = take_snapshot([tree], index=cache)
        racy = take_snapshot([tree], index=cache)
        assert len(hashed) == 4

        monkeypatch.setattr(snapshot, "RACY_NS", -(10**9))
        settled = take_snapshot([tree], index=cache)
        assert len(hashed) == 4

        size_kept = old.stat()
        old.write_text("int z;")
        os.utime(old, ns=(size_kept.st_atime_ns, size_kept.st_mtime_ns))
        changed = take_snapshot([tree], index=cache)

    assert first.files == racy.files == settled.files
    assert len(hashed) == 5  # same size and mtime, but the change time gives it away
    assert changed.files[1].digest != first.files[1].digest


def test_a_file_that_changed_since_is_refused(tmp_path: Path) -> None:
    """Findings of other bytes than the snapshot's digest would be false evidence."""
    file = tmp_path / "a.c"
    file.write_text("int a;")
    entry = take_snapshot([tmp_path]).files[0]

    file.write_text("int b;")
    with pytest.raises(SourceChanged, match="changed"):
        read_verified(str(tmp_path), entry)
    file.unlink()
    with pytest.raises(SourceChanged, match="vanished"):
        read_verified(str(tmp_path), entry)
    file.symlink_to("/etc/passwd")
    with pytest.raises(SourceChanged, match="unreadable"):
        read_verified(str(tmp_path), entry)
