"""A run with planted secrets: none of them stands anywhere in clear."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

PASSPHRASE = "passphrase-4f1c9e7a2b"
PLANTED = {"AWS_SECRET_ACCESS_KEY": "planted-aws-8d72e6b1f0", "SOME_TOKEN": "planted-token-77aa0c4e91"}
Run = Callable[..., subprocess.CompletedProcess[bytes]]


def _everything(folder: Path) -> Iterator[tuple[str, bytes]]:
    for file in folder.rglob("*"):
        if file.is_file() and not file.is_symlink():
            yield str(file), file.read_bytes()


def test_no_planted_secret_is_in_logs_evidence_ledger_or_state(
    pool_command: Run, small_tree: Path, tmp_path: Path
) -> None:
    """When this fails, whoever reads evidence or logs holds a key to something else."""
    home, evidence = Path(os.environ["DETECTOR_POOL_HOME"]), tmp_path / "evidence"
    secrets = {**PLANTED, "DETECTOR_POOL_PASSPHRASE": PASSPHRASE}
    arguments = ("scan", small_tree, "--fail-on", "never", "--evidence", evidence)
    done = pool_command(*arguments, env={**os.environ, **secrets})
    failed = pool_command("scan", tmp_path / "missing", "--evidence", tmp_path / "two", env={**os.environ, **secrets})
    locked = pool_command(
        *arguments[:-1], tmp_path / "three", env={**os.environ, "DETECTOR_POOL_PASSPHRASE": PASSPHRASE + "x"}
    )

    assert (done.returncode, failed.returncode) == (0, 2), done.stderr
    assert locked.returncode != 0
    seen = dict(_everything(home)) | dict(_everything(evidence))
    for name, run in (("one", done), ("two", failed), ("three", locked)):
        seen |= {f"{name}.stdout": run.stdout, f"{name}.stderr": run.stderr}
    assert {"ledger-proof.json", "signing-key.pem", "0000000000.segment"} <= {Path(name).name for name in seen}
    for secret in (*PLANTED.values(), PASSPHRASE):
        assert [name for name, data in seen.items() if secret.encode() in data] == []
