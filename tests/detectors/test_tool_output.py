"""What ruff, bandit, lizard, detect-secrets and mypy print is held against what they were asked."""

from __future__ import annotations

import json
from typing import Any

import pytest

from detectors.detector import Tool
from detectors.errors import ToolOutputInvalid
from detectors.model import Completed, FileReport
from detectors.tools.bandit import Bandit
from detectors.tools.detect_secrets import DetectSecrets
from detectors.tools.lizard import Lizard
from detectors.tools.mypy import Mypy
from detectors.tools.ruff import Ruff

ASKED = {"a.py": b"import os\n"}


def _ruff(name: str, line: int) -> tuple[str, str]:
    place = {"row": line, "column": 8}
    entry = {"filename": name, "code": "F401", "message": "unused", "location": place, "end_location": place}
    return json.dumps([entry]), "[DEBUG] Checking: a.py\n"


def _bandit(name: str, line: int) -> tuple[str, str]:
    entry = {
        "filename": f"./{name}", "line_number": line, "line_range": [line], "issue_text": "x", "test_id": "B404",
        "test_name": "blacklist", "issue_severity": "LOW",
    }  # fmt: skip
    return json.dumps({"errors": [], "results": [entry], "metrics": {"./a.py": {}}}), ""


def _lizard(name: str, line: int) -> tuple[str, str]:
    function = f'<item name="f(x) at ./{name}:{line}"><value>1</value><value>9</value><value>16</value></item>'
    measures = f'<measure type="Function">{function}</measure><measure type="File"><item name="./a.py"/></measure>'
    return f"<cppncss>{measures}</cppncss>", ""


def _detect_secrets(name: str, line: int) -> tuple[str, str]:
    entry = {"type": "AWS Access Key", "filename": name, "line_number": line}
    return json.dumps({"results": {name: [entry]}}), "Checking file: a.py\n"


def _mypy(name: str, line: int) -> tuple[str, str]:
    entry: dict[str, Any] = {
        "file": name, "line": line, "column": 0, "end_line": line, "end_column": 1, "severity": "error",
        "message": "x" if line else "", "hint": None, "code": "misc",
    }  # fmt: skip
    return f"{json.dumps(entry)}\n{json.dumps({'checked': ['a.py']})}\n", ""


PRINTED = ((Ruff, _ruff), (Bandit, _bandit), (Lizard, _lizard), (DetectSecrets, _detect_secrets), (Mypy, _mypy))


@pytest.mark.parametrize(("kind", "printed"), PRINTED, ids=[kind.name for kind, _ in PRINTED])
def test_only_what_was_asked_about_is_an_answer(kind: type[Tool], printed: Any) -> None:
    """A name that is misread would make a file clean whose findings went elsewhere."""
    good, other, nowhere = (
        Completed(0, *(part.encode() for part in printed(*what)), 0.1)
        for what in (("a.py", 1), ("b.py", 1), ("a.py", 0))
    )
    report = kind().parse(good, ASKED)["a.py"]

    assert isinstance(report, FileReport)
    assert [finding.region.start_line for finding in report.findings] == [1]
    with pytest.raises(ToolOutputInvalid, match="not asked about"):
        kind().parse(other, ASKED)
    with pytest.raises((ToolOutputInvalid, ValueError)):
        kind().parse(nowhere, ASKED)
