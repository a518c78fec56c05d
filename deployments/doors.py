"""
The door of every command: what it asks leave for before it does anything.

It stands in front of the commands and not in each of them: a command that has no line here asks for leave to
administer, so that a new one is closed until somebody has thought about it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from typer.core import TyperGroup

from detectors.ports import Action

if TYPE_CHECKING:
    import typer

__all__ = ["DOORS", "OPEN", "Door", "commands", "guarded"]


@dataclass(frozen=True)
class Door:
    """What a command asks leave for."""

    action: Action
    target: str
    """A store; empty for a command that runs detectors on trees."""
    folder: str = ""
    """Parameter that names the store's folder; of a command that runs detectors, the trees', `paths` when empty."""
    detectors: Callable[[Mapping[str, Any]], tuple[str, ...] | None] | None = None
    """From the parameters, which detectors run; all for None."""


def _named(parameters: Mapping[str, Any]) -> tuple[str, ...] | None:
    given = parameters.get("detectors")
    return None if given is None else tuple(name for words in given for name in words.split(",") if name)


def _scored(_parameters: Mapping[str, Any]) -> tuple[str, ...]:
    from compliance.score import DETECTORS

    return tuple(DETECTORS)


def _benchmarked(_parameters: Mapping[str, Any]) -> tuple[str, ...]:
    from compliance.score import DETECTORS

    return (*DETECTORS, "bandit", "flawfinder", "lizard")


RUN = Door("run", "", detectors=_named)
DOORS: Mapping[str, Door] = {
    "scan": RUN,
    "run scan": RUN,
    "comply": Door("run", "", detectors=_scored),
    "run comply": Door("run", "", detectors=_scored),
    "benchmark": Door("run", "", "sources", detectors=_benchmarked),
    "benchmark soak": Door("run", "", "sources", detectors=_benchmarked),
    "benchmark peers": Door("run", "", "sources", detectors=_benchmarked),
    "benchmark growth": Door("run", "", "sources", detectors=_benchmarked),
    "run benchmark": Door("run", "", "sources", detectors=_benchmarked),
    "run audit": Door("verify", "ledger", "ledger"),
    "evidence verify": Door("verify", "evidence", "folder"),
    "evidence reperform": Door("verify", "evidence", "folder"),
    "evidence carry": Door("verify", "evidence", "later"),
    "history runs": Door("read", "evidence", "folder"),
    "history trend": Door("read", "evidence", "folder"),
    "history findings": Door("read", "evidence", "folder"),
    "audit init": Door("administer", "ledger", "ledger"),
    "audit append": Door("administer", "ledger", "ledger"),
    "audit recover": Door("administer", "ledger", "ledger"),
    "audit rotate": Door("administer", "ledger", "ledger"),
    "audit retain": Door("administer", "ledger", "ledger"),
    "audit show": Door("read", "ledger", "ledger"),
    "audit export": Door("read", "ledger", "ledger"),
    "audit verify": Door("verify", "ledger", "ledger"),
    "audit checkpoint": Door("verify", "ledger", "ledger"),
    "access init": Door("administer", "policy"),
    "access token": Door("administer", "policy"),
    "access policy": Door("read", "policy"),
    "access review": Door("read", "policy"),
    "detectors qualify": Door("run", "", "sources", detectors=_named),
    "detectors agreement": Door("read", "evidence", "file"),
    "waiver create": Door("waive", "waivers"),
    "waiver approve": Door("approve", "waivers"),
    "waiver list": Door("read", "waivers", "folder"),
    "validate": Door("run", "", "sources", detectors=_scored),
    "certs init": Door("administer", "certificates", "folder"),
    "certs renew": Door("administer", "certificates", "folder"),
    "cluster up": Door("administer", "cluster"),
    "cluster join": Door("administer", "cluster"),
    "cluster down": Door("administer", "cluster"),
    "cluster status": Door("read", "cluster"),
    "certs show": Door("read", "certificates", "folder"),
    "deploy": Door("administer", "policy"),
    "services init": Door("administer", "policy"),
}
OPEN = frozenset({"detectors list", "detectors show", "doctor", "access check", "access key", "access request"})
"""Commands that reveal and change nothing that is guarded."""
OTHERWISE = Door("administer", "policy")
MAX_DEPTH = 4


def guarded(app: typer.Typer) -> Any:
    """Return the command line with its door in front of each command."""
    from typer.main import get_command

    root = get_command(app)
    for name, leaf in commands(root):
        if name in OPEN:
            continue
        assert leaf.callback is not None, "a command does something"
        leaf.callback = _behind(DOORS.get(name, OTHERWISE), leaf.callback)
    return root


def commands(root: Any) -> Iterator[tuple[str, Any]]:
    """Yield the name (without the program's) and each command that does something."""
    level: list[tuple[str, Any]] = [("", root)]
    for _ in range(MAX_DEPTH):
        groups = [(name, command) for name, command in level if isinstance(command, TyperGroup)]
        # A group that does something itself is a command, too; the program's own answers `--version` only.
        yield from (
            (name, command)
            for name, command in level
            if not isinstance(command, TyperGroup) or (command.invoke_without_command and name)
        )
        level = [(f"{name} {word}".strip(), inner) for name, group in groups for word, inner in group.commands.items()]
    assert not level, "groups of commands are nested no deeper"


def _behind(door: Door, action: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(action)
    def ask_first(*args: Any, **parameters: Any) -> Any:
        _ask(door, parameters)
        return action(*args, **parameters)

    return ask_first


def _ask(door: Door, parameters: Mapping[str, Any]) -> None:
    from detectors.access import require, require_detectors

    if door.target:
        folder = parameters.get(door.folder) if door.folder else None
        require(door.action, door.target, door="command", folder=None if folder is None else Path(folder))
        return
    assert door.detectors is not None, "a door without a store runs detectors"
    trees = parameters[door.folder or "paths"]
    if not trees:
        from detectors.file_work import here

        trees = here()  # what a command works on that was named no sources
    listed = trees if isinstance(trees, (list, tuple)) else [trees]
    require_detectors(map(Path, listed), door.detectors(parameters), door="command")
