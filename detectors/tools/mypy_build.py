"""
Run inside of the sandbox, as a program: mypy on files that it finds under no names but those given here.

mypy's own command line stops at names that no import can spell, at two files of one name, at modules that hide those
of the standard library, and at what a single file has that it cannot parse. Here each file has a name of its own, made
of its path alone, so that the answer about a file does not depend on which others are asked about.

    python -P mypy_build.py N FOLDER... FILE...     (N folders of modules, deepest first, then files)

prints one JSON object a line: what mypy says, then `{"file": …, "blocked": …}` for a file that mypy cannot read, then
`{"checked": [file…]}`.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mypy.build import BuildResult
    from mypy.fscache import FileSystemCache
    from mypy.modulefinder import BuildSource
    from mypy.options import Options

ANYTHING = "from typing import Any\n\n\ndef __getattr__(name: str) -> Any: ...\n"
"""Stands for a module that cannot be read: whatever is imported from it is unknown."""
MOST_BLOCKED = 64
"""Files that are set aside in one run; with more, the caller's halving goes on."""
FLAGS = (
    "--strict", "--config-file=", "--cache-dir=/dev/null", "--no-incremental", "--no-site-packages",
    "--namespace-packages", "--explicit-package-bases", "--ignore-missing-imports", "--follow-imports=normal",
    # mypy's own parser counts columns wrongly after letters that are not ASCII.
    "--no-native-parser", "--show-error-end", "--no-error-summary", "--output=json",
    "--python-version=3.11", "--platform=linux",
    "--allow-untyped-decorators", "--no-warn-return-any", "--no-warn-unused-ignores",
)  # fmt: skip
"""Bases of type `Any` are still told: they mark what the caller drops."""


class Stage:
    """
    A folder of links in which each top-level package or module of the tree has the name that imports use.

    Args:
        folder: Where the links are made; an empty folder.
        tree: The files.
        search: Folders below which modules are named, relative to `tree`, deepest first.
        reserved: Top-level names of the standard library's types: no module of the tree takes their place.
    """

    def __init__(self, folder: Path, tree: Path, search: Sequence[str], reserved: Iterable[str]) -> None:
        self.folder = folder
        self._tree = tree
        self._search = search
        self._reserved = frozenset(reserved)
        for base in search:
            if (tree / base).is_dir():
                self._link_modules(tree / base)

    def source(self, file: str) -> tuple[str, str]:
        """Return the path in the stage, and the name, by which an import finds `file` if it can be spelled."""
        base = next((base for base in self._search if base == "." or file.startswith(f"{base}/")), ".")
        parts = file.split("/") if base == "." else file[len(base) + 1 :].split("/")
        *folders, name = parts
        dotted = max((place for place, part in enumerate(folders) if "." in part), default=-1)
        if dotted >= 0 or parts[0].partition(".")[0] in self._reserved:
            first = "/".join([*([] if base == "." else [base]), *parts[: max(dotted, 0) + 1]])
            return self._named(self._own_link(first), parts[max(dotted, 0) + 1 :])
        return self._named(folders[0] if folders else name, parts[1:])

    def alone(self, file: str, module: str) -> tuple[str, str]:
        """Return the path and name of a file whose name is another's: beside it, and found by no import."""
        link = self._own_link(file)
        # Not called `__init__`: relative imports of a second one start at its package, as the first one's do.
        package = module if _stem(file) == "__init__" else module.rpartition(".")[0]
        return link, ".".join(filter(None, (package, link.partition(".")[0])))

    def _named(self, first: str, rest: Sequence[str]) -> tuple[str, str]:
        path = "/".join((first, *rest))
        *folders, name = path.split("/")
        stem = _stem(name)
        if "." in stem:
            return path, ".".join([*folders, _own_name(path, stem)])
        return path, ".".join(folders if stem == "__init__" and folders else [*folders, stem])

    def _own_link(self, file: str) -> str:
        target = self._tree / file
        suffix = Path(file).suffix if target.is_file() else ""
        link = _own_name(file, _stem(target.name)) + suffix
        if not (self.folder / link).is_symlink():
            (self.folder / link).symlink_to(target)
        return link

    def _link_modules(self, folder: Path) -> None:
        for entry in sorted(folder.iterdir()):
            link = self.folder / entry.name
            if entry.name.partition(".")[0] not in self._reserved and not link.is_symlink():
                link.symlink_to(entry)


def main(arguments: Sequence[str]) -> int:
    """Check the files that `arguments` name; see the module. Returns 0 whatever is found."""
    from mypy.fscache import FileSystemCache
    from mypy.main import process_options

    count = int(arguments[0])
    search, files = arguments[1 : count + 1], arguments[count + 1 :]
    tree = Path.cwd()
    folder = Path(tempfile.mkdtemp())
    stage = Stage(folder, tree, search, _standard_names())
    os.chdir(folder)
    cache = FileSystemCache()
    _, options = process_options([*FLAGS], fscache=cache, require_targets=False)
    sources = dict(_sources(stage, files, options, cache))
    anything = Path(tempfile.mkdtemp()) / "anything.py"
    anything.write_text(ANYTHING)
    result, told, blocked = _built(list(sources.values()), options, str(anything))
    names = {source.path: file for file, source in sources.items()}
    for entry in told:
        if entry["file"] in names:
            _tell({**entry, "file": names[entry["file"]]})
    for path, message in blocked.items():
        if path in names:
            _tell({"file": names[path], "blocked": message})
    checked = {state.path for state in result.graph.values() if not state.ignore_all} - set(blocked)
    _tell({"checked": [file for file, source in sources.items() if source.path in checked]})
    return 0


def _tell(entry: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(entry) + "\n")


def _sources(
    stage: Stage, files: Sequence[str], options: Options, cache: FileSystemCache
) -> Iterator[tuple[str, BuildSource]]:
    from mypy.modulefinder import BuildSource, FindModuleCache, SearchPaths

    finder = FindModuleCache(SearchPaths((".",), (), (), ()), cache, options)
    for file in sorted(files):
        path, module = stage.source(file)
        found = finder.find_module(module)
        if isinstance(found, str) and stage.folder / found != stage.folder / path:
            path, module = stage.alone(file, module)
        yield file, BuildSource(path, module)


def _built(
    sources: list[BuildSource], options: Options, anything: str
) -> tuple[BuildResult, list[dict[str, Any]], dict[str, str]]:
    """Return mypy's result and diagnostics, and by path what stood in the way of what had to be set aside."""
    from mypy.build import build
    from mypy.errors import CompileError

    paths = {source.module: source.path or "" for source in sources}
    blocked: dict[str, str] = {}
    for _ in range(MOST_BLOCKED):
        lines: list[str] = []
        try:
            result = build(sources, options, flush_errors=functools.partial(_keep, lines))
        except CompileError as problem:
            path, message = _blocker(lines, paths.get(problem.module_with_blocker or "", ""))
            if not path or path in blocked:
                raise
            blocked[path] = message
            options.shadow_file = [[path, anything] for path in blocked]
        else:
            return result, [json.loads(line) for line in lines], blocked
    raise SystemExit(f"more than {MOST_BLOCKED} files that mypy cannot read")


def _keep(lines: list[str], _file: str | None, new: list[str], _serious: bool) -> None:
    lines += new


def _blocker(lines: Sequence[str], otherwise: str) -> tuple[str, str]:
    """Return path and message of the error that ended a build."""
    for line in reversed(lines):
        if not line.startswith("{"):
            return otherwise, line
        entry = json.loads(line)
        if entry["severity"] == "error":
            return entry["file"], f"line {entry['line']}: {entry['message']}"
    return otherwise, "it ended the build"


def _standard_names() -> Iterator[str]:
    """Yield the top-level names of the standard library and of what its types import."""
    import mypy

    yield from sys.stdlib_module_names
    for folder in ("stdlib", "stubs/mypy-extensions", "stubs/librt"):
        yield from (_stem(entry.name) for entry in (Path(mypy.__file__).parent / "typeshed" / folder).iterdir())


def _own_name(file: str, stem: str) -> str:
    plain = "".join(character if character.isalnum() else "_" for character in stem)
    return f"{plain}_{hashlib.sha256(file.encode()).hexdigest()[:12]}"


def _stem(name: str) -> str:
    return name.rpartition("/")[2].removesuffix(".py").removesuffix(".pyi")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
