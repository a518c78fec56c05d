"""semgrep with our rules: each rule fires where it should and nowhere else, and the tree cannot mute it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Scan = Callable[..., dict[str, Any]]

C = """\
#include <stdlib.h>
void f(char *p, char *q, int n)
{
    p = realloc(p, n);                               // c-realloc-over-pointer
    q = realloc(p, n);
    memset(p, n, 0);                                 // c-memset-swapped
    memset(p, 0, n);
    p[snprintf(p, n, "x")] = 0;                      // c-length-from-snprintf
    p[0] = snprintf(q, n, "x");
    if (access(p, 0) == 0) { n = open(p, 0); }       // c-access-before-open
    if (access(p, 0) == 0) { n = open(q, 0); }
}
"""
PYTHON = """\
import hashlib, hmac, os, requests, ssl, tarfile
def f(p, q):
    with tarfile.open(p) as t:
        t.extractall(q)                              # python-archive-extracted-whole
        t.extractall(q, filter="data")
    c = ssl._create_unverified_context()             # python-unverified-peer
    c.verify_mode = ssl.CERT_NONE                    # python-unverified-peer
    c.verify_mode = ssl.CERT_REQUIRED
    requests.get(p, verify=False)                    # python-unverified-peer
    requests.get(p, verify=q)
    if hashlib.sha256(p).hexdigest() == q:           # python-compared-secret
        pass
    if hmac.compare_digest(hashlib.sha256(p).hexdigest(), q):
        pass
    if os.path.exists(p):
        open(p)                                      # python-existing-before-open
        open(q)
"""


def _expected(text: str, path: str, mark: str) -> set[tuple[str, int, str]]:
    lines = enumerate(text.splitlines(), 1)
    return {
        (path, number, f"semgrep/{line.partition(mark)[2].strip()}") for number, line in lines if f"{mark} " in line
    }


@pytest.mark.system
def test_each_rule_fires_where_it_should_and_nothing_in_the_tree_mutes_it(scan_json: Scan, tmp_path: Path) -> None:
    """A rule that is blind, noisy, or that the scanned tree can switch off is evidence of nothing."""
    tree = tmp_path / "tree"
    (tree / "node_modules").mkdir(parents=True)
    (tree / ".git").mkdir()
    (tree / "node_modules" / "a.c").write_text(C)  # semgrep passes such folders over by itself
    (tree / "a.py").write_text(PYTHON)
    (tree / "muted.py").write_text("import ssl\nc = ssl._create_unverified_context()  # nosemgrep\n")
    (tree / "broken.c").write_text("int f( {{ p = realloc(p, 1); } }\n" + C.partition("\n")[2])
    (tree / ".semgrepignore").write_text("*\n")
    ran = tmp_path / "ran"
    (tree / ".git" / "config").write_text(f"[core]\n\trepositoryformatversion = 0\n\tfsmonitor = touch {ran}\n")

    result = scan_json(tree, "--detectors", "semgrep", "--no-ignore")

    found = {(f["path"], f["line"], f["rule"]) for f in result["findings"] if f["path"] != "broken.c"}
    muted = ("muted.py", 2, "semgrep/python-unverified-peer")
    assert found == _expected(C, "node_modules/a.c", "//") | _expected(PYTHON, "a.py", "#") | {muted}
    assert [f["path"] for f in result["findings"] if f["suppressed"]] == ["muted.py"]
    assert result["not_analysed"] == []
    assert not ran.exists()


def test_semgrep_runs_only_where_it_is_named(scan_json: Scan, tmp_path: Path) -> None:
    """What a run without --detectors consists of must not hang on what a machine happens to have."""
    (tmp_path / "a.py").write_text("import ssl\nc = ssl._create_unverified_context()\n")
    result = scan_json(tmp_path)
    assert result["summary"]["executed"] > 0
    assert "semgrep" not in json.dumps(result)
