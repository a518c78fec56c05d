"""Sphinx reads this: the site of these pages, built by `make docs`; nothing that it shows is loaded from elsewhere."""

from __future__ import annotations

import inspect
import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sphinx.application import Sphinx

project = "Enterprise Detector Pool"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
html_theme = "alabaster"
html_theme_options = {"description": "Static analysis as a build whose output is evidence", "page_width": "1100px"}
html_static_path = ["static"]
html_css_files = ["site.css"]
html_show_sphinx = False
myst_heading_anchors = 3
default_role = "literal"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints = "none"
autodoc_default_options = {"members": True}
COMMANDS, RULES = "reference/commands", "reference/rules"
COMMANDS_LIMIT_S = 300


def _commands() -> str:
    """Return every command's help in Markdown, as typer writes it."""
    command = [sys.executable, "-m", "typer", "deployments.cli", "utils", "docs", "--name", "detector-pool"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=COMMANDS_LIMIT_S)
    assert done.stdout.startswith("# "), "it begins with a title"
    return done.stdout


def _rules() -> str:
    """Return the documentation of every rule in Markdown: the docstring of its class."""
    from detectors.detector import discover

    told = ["# Rules\n", "The docstrings of the rules, as `detector-pool detectors show` prints them.\n"]
    for detector in discover():
        records = detector.rules()
        if not records:
            continue
        told.append(f"## {detector.name}\n")
        for rule in records:
            told.append(f"### {rule.id}\n\nLevel `{rule.level}`, for {', '.join(rule.languages)}.\n")
            told.append(f"```text\n{inspect.cleandoc(rule.help)}\n```\n")
    assert len(told) > 2, "there are rules"
    return "\n".join(told)


def _filled(_app: Sphinx, name: str, content: list[str]) -> None:
    """Put what the code says in the place of a page's text."""
    if name == COMMANDS:
        content[0] = _commands()
    elif name == RULES:
        content[0] = _rules()


def setup(app: Sphinx) -> None:
    """Connect the pages that are made from code."""
    app.connect("source-read", _filled)
