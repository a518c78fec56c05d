"""Classified sources: no word of them in any file that a scan leaves."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow.parquet as pq

Run = Callable[..., subprocess.CompletedProcess[bytes]]
WORD = "zanzibar"
C = f"""#include "{WORD}_header.h"
#define {WORD.upper()}_PASTE(a) a##{WORD}
static int {WORD}_count;   /* p10: ignore[R6] {WORD} asked for it by {WORD}-owner */
int {WORD}_recursive(int {WORD}_n)
{{
    char {WORD}_buffer[8];
    strcpy({WORD}_buffer, "{WORD} secret");
    if ({WORD}_n) goto {WORD}_out;
    {WORD}_recursive({WORD}_n - 1);
{WORD}_out:
    return {WORD}_count++;
}}
"""
PYTHON = f"""import {WORD}_module
import os, subprocess
password = "{WORD}-hunter2"  # nosec {WORD}
def {WORD}_down({WORD}_n: int) -> str:
    {WORD}_down({WORD}_n - 1)
    subprocess.call("{WORD} " + {WORD}_n, shell=True)
    return eval("{WORD}") + {WORD}_undefined
class {WORD.title()}: pass
"""


def _texts(folder: Path) -> Iterator[tuple[str, bytes]]:
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            yield file.name, file.read_bytes()
            if file.suffix == ".parquet":
                yield f"{file.name}, decoded", repr(pq.read_table(file).to_pylist()).encode()
                yield f"{file.name}, its schema", repr(pq.read_schema(file)).encode()


def test_no_word_of_the_sources_is_in_evidence_or_output(pool_command: Run, tmp_path: Path) -> None:
    """Names, strings, comments, suppressions, ignore patterns, what tools say of broken files: none of it leaves."""
    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "a.c").write_text(C)
    (tree / "b.py").write_text(PYTHON)
    (tree / "broken.py").write_text(f"def {WORD}(:\n")
    (tree / "compile_commands.json").write_text(f'[{{"{WORD}": }}]')
    (tree / ".gitignore").write_text(f"*.{WORD}\n")
    (tree / f"x.{WORD[:3]}").write_text("")
    before = tmp_path / "before.json"
    assert pool_command("scan", tree, "--json", "--output", before, "--fail-on", "never").returncode == 0
    assert WORD.encode() in before.read_bytes().lower(), "the plants bring nothing: this test shows nothing"
    (tree / "b.py").write_text(PYTHON.replace("shell=True", "shell=False"))

    done = pool_command(
        "scan", tree, "--no-excerpts", "--baseline", before, "--evidence", tmp_path / "evidence", "--fail-on", "never"
    )
    assert done.returncode == 0, done.stderr
    seen = {"standard output": done.stdout, "standard error": done.stderr} | dict(_texts(tmp_path / "evidence"))
    assert {name for name, data in seen.items() if WORD.encode() in data.lower()} == set()
    assert b"b.py" in seen["run.json"]
    assert b'"absent":[{' in seen["run.json"]
    assert pool_command("evidence", "verify", tmp_path / "evidence").returncode == 0

    again = pool_command(
        "evidence", "reperform", tmp_path / "evidence", "--sources", tree, "--seed", "1", "--sample", "2", "--output",
        tmp_path / "again.jsonl",
    )  # fmt: skip
    assert again.returncode == 2
    assert b"--no-excerpts" in again.stderr
