"""A tree made to break the scan: every oddity is listed, none is lost, and all other findings stand."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from detectors.detector import discover

Scan = Callable[..., dict[str, Any]]

JUMP = b"int f(int n)\n{\n    if (n) goto out;\nout:\n    return n;\n}\n"


def _bytes_path(tree: Path, name: bytes) -> Path:
    return Path(os.fsdecode(os.fsencode(tree) + b"/" + name))


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Every kind of bad input that the issue names, beside one plain file."""
    folder = tmp_path / "tree"
    folder.mkdir()
    (folder / "plain.c").write_bytes(JUMP)
    (folder / "junk.c").write_bytes(bytes(range(256)) * 500)
    (folder / "junk.py").write_bytes(bytes(range(256)) * 50)
    (folder / "latin1.c").write_bytes("/* ä */\n".encode("latin-1") + JUMP)
    (folder / "utf16.c").write_bytes(JUMP.decode().encode("utf-16"))
    (folder / "utf16.py").write_bytes("eval('1')\n".encode("utf-16"))
    (folder / "crlf.c").write_bytes(JUMP.replace(b"\n", b"\r\n"))
    (folder / "line.c").write_bytes(b"int a[] = {" + b"1," * 1_000_000 + b"1};\n" + JUMP)
    (folder / "deep.py").write_text("x = " + "(" * 3_000 + ")" * 3_000 + "\n")
    (folder / "broken.py").write_text("def (:\n")
    (folder / "empty.c").write_bytes(b"")
    (folder / "loop").symlink_to("loop")
    (folder / "up").symlink_to("..")
    os.mkfifo(folder / "pipe.c")
    for name in (b"new\nline.c", b"bad\xff.c", b"-rf.c", b"100%.c", "\u00e9.c".encode(), "e\u0301.c".encode(), b" .c"):
        _bytes_path(folder, name).write_bytes(JUMP)
    return folder


JUMPING = {"plain.c", "latin1.c", "utf16.c", "crlf.c", "line.c"} | {
    "new\nline.c",
    "bad%FF.c",
    "-rf.c",
    "100%.c",
    "\u00e9.c",
    "e\u0301.c",
    " .c",
}
"""Files in which the jump must be found, whatever their name or encoding."""


COMPILERS = ("compiler-warnings", "clang-tidy")
MISSING = {(name, "tool-missing") for name in (*JUMPING, "junk.c", "empty.c")}
"""What is said of C where no compiler is installed."""


def test_every_oddity_is_listed_and_no_finding_is_lost(scan_json: Scan, tree: Path) -> None:
    """With every detector but cppcheck, which looks at a line of two megabytes until its time is over."""
    names = ",".join(detector.name for detector in discover() if detector.name != "cppcheck")
    result = scan_json(tree, "--fail-on", "never", "--detectors", names)
    jumps = {item["path"] for item in result["findings"] if item["rule"] == "P10-R1-goto"}
    lost = {(entry["path"], entry["detector"], entry["reason"]) for entry in result["not_analysed"]}

    assert jumps == JUMPING
    assert ("loop", "", "symlink") in lost
    assert ("up", "", "symlink") in lost
    assert ("pipe.c", "", "special-file") in lost
    assert ("junk.c", "power-of-ten-c", "parse-error") in lost
    assert ("junk.py", "power-of-ten-python", "parse-error") in lost
    assert ("broken.py", "power-of-ten-python", "parse-error") in lost
    assert ("broken.py", "ruff", "parse-error") in lost
    assert ("broken.py", "bandit", "parse-error") in lost
    assert ("deep.py", "power-of-ten-python", "parse-error") in lost
    for name in JUMPING:
        assert not [entry for entry in lost if entry[0] == name and entry[1] not in COMPILERS], name
    # No compiler reads UTF-16, and each says so of this file only.
    refused = {(name, reason) for name, detector, reason in lost if detector in COMPILERS}
    assert refused <= {("utf16.c", "parse-error"), ("junk.c", "parse-error"), *MISSING}
    assert result["summary"]["whole"]


def test_exit_codes_with_and_without_require_complete(
    pool_command: Callable[..., subprocess.CompletedProcess[bytes]], tree: Path
) -> None:
    """*Not analysed* entries alone do not change the code; with `--require-complete` they do."""
    detectors = ("--detectors", "power-of-ten-c,power-of-ten-python")

    assert pool_command("scan", tree, *detectors).returncode == 0
    assert pool_command("scan", tree, *detectors, "--fail-on", "warning").returncode == 1
    assert pool_command("scan", tree, *detectors, "--require-complete").returncode == 4
    assert pool_command("scan", tree / "plain.c", *detectors, "--require-complete").returncode == 0


def test_text_output_cannot_drive_the_terminal(
    pool_command: Callable[..., subprocess.CompletedProcess[bytes]], tmp_path: Path
) -> None:
    """A file name with escape sequences is shown escaped."""
    folder = tmp_path / "escapes"
    folder.mkdir()
    _bytes_path(folder, b"\x1b[31mred\x07.c").write_bytes(JUMP)

    done = pool_command("scan", folder, "--detectors", "power-of-ten-c")

    assert b"\\x1b[31mred\\x07.c" in done.stdout
    assert b"\x1b" not in done.stdout + done.stderr


@pytest.mark.skipif(shutil.which("setpriv") is None, reason="only root can give up the right to read everything")
def test_unreadable_files_and_folders_are_listed(tmp_path: Path) -> None:
    """Mode 000 hides nothing: who may not read says so. Run as nobody, since root may read all."""
    tree = tmp_path / "tree"
    (tree / "closed").mkdir(parents=True)
    (tree / "open.c").write_bytes(JUMP)
    (tree / "shut.c").write_bytes(JUMP)
    (tree / "closed" / "inside.c").write_bytes(JUMP)
    (tree / "shut.c").chmod(0)
    (tree / "closed").chmod(0)
    code = (
        "import sys; from pathlib import Path; from detectors.snapshot import take_snapshot;"
        "s = take_snapshot([Path(sys.argv[1])]);"
        "print([f.path for f in s.files], [(n.path, n.reason) for n in s.not_analysed])"
    )
    command = [sys.executable, "-c", code, str(tree)]
    if os.geteuid() == 0:
        for folder in (tree, *tree.parents):
            if folder == Path("/tmp"):
                break
            folder.chmod(0o755)
        command = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--", *command]

    done = subprocess.run(command, capture_output=True, check=False, text=True, timeout=60)

    (tree / "closed").chmod(0o755)
    assert done.stdout == "['open.c'] [('closed', 'unreadable'), ('shut.c', 'unreadable')]\n", done.stderr
