"""Each way in which a scanned tree mutes or hijacks a wrapped tool is planted, and changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Scan = Callable[..., dict[str, Any]]

PYTHON = (
    "import os\nimport subprocess\n\n\ndef f(x):\n    subprocess.call(x, shell=True)\n    y = 1\n    return None == x\n"
)
COMPLEX = "int g(int a)\n{\n" + "".join(f"    if (a == {n}) a++;\n" for n in range(20)) + "    return a;\n}\n"
C = "#include <string.h>\nvoid copy(char *to, const char *from)\n{\n    strcpy(to, from);\n}\n" + COMPLEX
KEY = 'aws = "AKIAIOSFODNN7EXAMPLF"\n'
TOOLS = "ruff,bandit,flawfinder,lizard,detect-secrets,mypy"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Sources that every tool has something to say of."""
    folder = tmp_path / "tree"
    folder.mkdir()
    (folder / "a.py").write_text(PYTHON)
    (folder / "a.c").write_text(C)
    (folder / "key.py").write_text(KEY)
    return folder


def _found(result: dict[str, Any]) -> set[tuple[str, int, str, bool]]:
    names = {"a.py", "a.c", "key.py"}
    return {(f["path"], f["line"], f["rule"], f["suppressed"]) for f in result["findings"] if f["path"] in names}


def _plant(tree: Path, marker: Path) -> None:
    """Write every configuration, baseline, plugin and hook that a tool looks for."""
    evil = f"open({str(marker)!r}, 'a').write(__name__)\n"
    files = {
        "pyproject.toml": '[tool.ruff]\nexclude = ["**"]\n[tool.ruff.lint]\nignore = ["ALL"]\n[tool.bandit]\nexclude_dirs = ["."]\n'
        '[tool.mypy]\nignore_errors = true\nplugins = ["plugin.py"]\n',
        "mypy.ini": "[mypy]\nplugins = ./plugin.py\nignore_errors = True\nexclude = .*\n",
        ".mypy.ini": "[mypy]\nplugins = ./plugin.py\nignore_errors = True\n",
        "mypy.py": evil,
        "mypy_build.py": evil,
        "builtins.pyi": "def __getattr__(name): ...\n",
        "typing.py": evil,
        "subprocess.py": evil,
        "ruff.toml": 'exclude = ["**"]\n[lint]\nignore = ["ALL"]\n',
        ".ruff.toml": 'exclude = ["**"]\n',
        ".bandit": "[bandit]\nexclude = /\nskips = B602,B404\n",
        "setup.cfg": "[bandit]\nskips = B602\n[flake8]\nignore = E,F\n[mypy]\nignore_errors = True\n",
        "tox.ini": "[bandit]\nskips = B602\n",
        "whitelizer.txt": "g\n",
        ".lizard": "-C 1000\n",
        "lizardrc": "-C 1000\n",
        ".flawfinder": "--minlevel 5\n",
        ".secrets.baseline": (
            '{"version": "1.5.0", "plugins_used": [{"name": "Evil", "path": "file://' + str(tree / "plugin.py") + '"}],'
            ' "filters_used": [{"path": "file://' + str(tree / "plugin.py") + '::evil"}],'
            ' "results": {"key.py": [{"type": "AWS Access Key", "filename": "key.py", "line_number": 1, "is_secret": false}]}}'
        ),
        "plugin.py": evil,
        "sitecustomize.py": evil,
        "usercustomize.py": evil,
        "json.py": evil,
        "bandit.py": evil,
        "lizard.py": evil,
        "lizard_ext/__init__.py": evil,
        "lizard_ext/lizardcpre.py": evil,
        "detect_secrets.py": evil,
        "conftest.py": evil,
        "hook.sh": f"#!/bin/sh\necho hook >> {marker}\n",
    }
    for name, text in files.items():
        (tree / name).parent.mkdir(exist_ok=True)
        (tree / name).write_text(text)
    (tree / "hook.sh").chmod(0o755)
    (tree / ".git").mkdir()
    (tree / ".git" / "HEAD").write_text("ref: refs/heads/main\n")
    for folder in ("objects", "refs"):
        (tree / ".git" / folder).mkdir()
    (tree / ".git" / "config").write_text(
        f"[core]\n\trepositoryformatversion = 0\n\tfsmonitor = {tree / 'hook.sh'}\n\thooksPath = {tree}\n"
    )


def test_configuration_plugins_and_hooks_of_the_tree_change_nothing(
    scan_json: Scan, tree: Path, tmp_path: Path
) -> None:
    """No rule is muted, no code of the tree runs; also when the scan is started inside of the tree."""
    clean = _found(scan_json(tree, "--detectors", TOOLS, "--no-cache"))
    marker = tmp_path / "executed"
    _plant(tree, marker)
    from_outside = _found(scan_json(tree, "--detectors", TOOLS, "--no-cache"))
    inside = {"PYTHONPATH": str(Path(__file__).parents[2]), "PYTHONSAFEPATH": "1"}
    import os

    from_inside = _found(scan_json(".", "--detectors", TOOLS, "--no-cache", cwd=tree, env={**os.environ, **inside}))

    assert {rule.partition("/")[0] for _, _, rule, _ in clean} == set(TOOLS.split(","))
    assert from_outside == clean
    assert from_inside == clean
    assert not marker.exists(), marker.read_text()


def test_ignore_files_hide_openly_and_no_ignore_scans_what_they_hide(scan_json: Scan, tree: Path) -> None:
    """What the tree's ignore file takes out of scope is counted, never silent."""
    clean = scan_json(tree, "--detectors", TOOLS, "--no-cache")
    (tree / ".gitignore").write_text("*.py\n*.c\n")

    hidden = scan_json(tree, "--detectors", TOOLS, "--no-cache")
    shown = scan_json(tree, "--detectors", TOOLS, "--no-cache", "--no-ignore")

    assert _found(hidden) == set()
    assert hidden["summary"]["excluded"] == 3
    assert _found(shown) == _found(clean)


@pytest.mark.parametrize(
    ("name", "old", "new", "rule"),
    [
        ("a.py", "import os\n", "import os  # noqa\n", "ruff/F401"),
        ("a.py", "import os\n", "import os  # noqa: F401\n", "ruff/F401"),
        ("a.py", "import os\n", "# ruff: noqa\nimport os\n", "ruff/F401"),
        ("a.py", "import os\n", "# flake8: noqa: F401\nimport os\n", "ruff/F401"),
        ("a.py", "import os\n", "import os  # ruff: ignore[F401]\n", "ruff/F401"),
        ("a.py", "def f(x):", "def f(x):  # type: ignore", "mypy/no-untyped-def"),
        ("a.py", "import os\n", "# mypy: ignore-errors\nimport os\n", "mypy/no-untyped-def"),
        ("a.py", "shell=True)", "shell=True)  # nosec", "bandit/B602"),
        ("a.py", "shell=True)", "shell=True)  # nosec B602", "bandit/B602"),
        ("a.c", "from);", "from); /* Flawfinder: ignore */", "flawfinder/strcpy"),
        ("a.c", "from);", "from); // ITS4: ignore", "flawfinder/strcpy"),
        ("a.c", "{\n    if (a == 0)", "{\n    // #lizard forgives\n    if (a == 0)", "lizard/cyclomatic-complexity"),
        ("a.c", "int g(int a)", "/* GENERATED CODE */\nint g(int a)", "lizard/cyclomatic-complexity"),
        ("key.py", 'F"', 'F"  # pragma: allowlist secret', "detect-secrets/aws-access-key"),
        ("key.py", "aws", "# pragma: allowlist nextline secret\naws", "detect-secrets/aws-access-key"),
    ],
)
def test_markers_in_the_source_suppress_openly(
    scan_json: Scan, tree: Path, name: str, old: str, new: str, rule: str
) -> None:
    """The finding is still there, and says that a marker asked for silence."""
    text = (tree / name).read_text()
    assert old in text
    before = [f for f in scan_json(tree, "--detectors", TOOLS)["findings"] if f["rule"] == rule]
    (tree / name).write_text(text.replace(old, new, 1))

    after = [f for f in scan_json(tree, "--detectors", TOOLS)["findings"] if f["rule"] == rule and f["path"] == name]

    assert [f["suppressed"] for f in before if f["path"] == name] == [False]
    assert [f["suppressed"] for f in after] == [True]


def test_a_marker_of_another_rule_suppresses_nothing(scan_json: Scan, tree: Path) -> None:
    """A marker speaks of what it names only."""
    text = PYTHON.replace("import os\n", "import os  # noqa: E501\n").replace(
        "shell=True)", "shell=True)  # nosec B101"
    )
    (tree / "a.py").write_text(text)

    found = scan_json(tree, "--detectors", "ruff,bandit")["findings"]

    assert {f["suppressed"] for f in found} == {False}


def test_names_that_escape_a_tool_by_themselves(scan_json: Scan, tmp_path: Path) -> None:
    """Lock files, eggs and hidden folders are passed over by some tools; here their content counts."""
    tree = tmp_path / "odd"
    for name in ("package-lock.json", "x.egg/a.py", ".tox/a.py", "__pycache__/a.py", "swagger/a.json"):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(KEY if name.endswith("json") else PYTHON)

    result = scan_json(tree, "--detectors", "bandit,ruff,detect-secrets")
    found = {(f["path"], f["rule"]) for f in result["findings"]}

    for name in ("package-lock.json", "swagger/a.json"):
        assert (name, "detect-secrets/aws-access-key") in found
    for name in ("x.egg/a.py", ".tox/a.py", "__pycache__/a.py"):
        assert (name, "bandit/B602") in found
        assert (name, "ruff/F401") in found
    assert result["not_analysed"] == []
