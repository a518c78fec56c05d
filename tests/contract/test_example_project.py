"""The example project is reported as its README says."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

FLIGHT = Path(__file__).parents[2] / "examples" / "flight"
ROW = re.compile(r"^\| `([^`:]+):(\d+)` \| `([^`]+)` \|", re.MULTILINE)


def test_the_example_project_is_reported_as_its_readme_says(
    scan_json: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    """When this fails, the demo shows something other than what was planted."""
    planted = {(path, int(line), rule) for path, line, rule in ROW.findall((FLIGHT / "README.md").read_text())}
    scanned = scan_json(FLIGHT, "--cache", tmp_path / "cache", "--fail-on", "never")
    found = [(item["path"], item["line"], item["rule"]) for item in scanned["findings"]]

    assert len(planted) > 20
    assert planted - set(found) == set()
    assert sorted(item for item in planted if item[2].startswith("P10-")) == [
        item for item in sorted(found) if item[2].startswith("P10-")
    ]
    assert scanned["not_analysed"] == []
