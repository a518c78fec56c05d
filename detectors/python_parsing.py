"""
Python: `ast` of the text, walked once with a stack of our own, so that no depth of nesting overflows.

The code is never imported or run. A file that CPython's parser refuses is `Unparsable`.
"""

from __future__ import annotations

import ast
import functools
import re
import warnings
from collections.abc import Iterator, Sequence

from detectors.model import Language, Region
from detectors.parsing import ParsedFile, Unparsable

__all__ = ["Definition", "PythonFile", "dotted"]

Scope = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


class Definition:
    """A function and where it stands."""

    __slots__ = ("class_name", "name", "node", "qualified")

    def __init__(self, node: ast.FunctionDef | ast.AsyncFunctionDef, qualified: str, class_name: str | None) -> None:
        self.node = node
        self.name = node.name
        self.qualified = qualified
        """Names of the classes and functions around it, and its own, with dots."""
        self.class_name = class_name
        """Qualified name of the class whose method it is; `None` for functions."""


class PythonFile(ParsedFile):
    """A Python file."""

    def __init__(self, data: bytes, language: Language, name: str = "") -> None:
        super().__init__(data, language, name)
        self.text = self.text.removeprefix("\ufeff")

    @functools.cached_property
    def module(self) -> ast.Module:
        """
        The tree.

        Raises:
            Unparsable: CPython's parser refuses the text, or cannot hold it.
        """
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # odd escapes in the scanned text are not this run's warnings
                return ast.parse(self.text)
        except SyntaxError as problem:
            raise Unparsable("parse-error", f"line {problem.lineno or 0}: {problem.msg}"[:200]) from problem
        except (ValueError, RecursionError, MemoryError, OverflowError) as problem:
            raise Unparsable("parse-error", f"{type(problem).__name__}: {problem}"[:200]) from problem

    @functools.cached_property
    def nodes(self) -> Sequence[tuple[ast.AST, Definition | None]]:
        """Every node with the function around it, parents before children."""
        return self._walked[0]

    @functools.cached_property
    def definitions(self) -> Sequence[Definition]:
        """Every function, in the order of the text."""
        return self._walked[1]

    @functools.cached_property
    def imports(self) -> dict[str, str]:
        """
        Local name to the dotted name that it was imported as, anywhere in the file.

        Relative imports begin with their dots.
        """
        found: dict[str, str] = {}
        for node, _ in self.nodes:
            if isinstance(node, ast.Import):
                for alias in node.names:
                    found[alias.asname or alias.name.partition(".")[0]] = (
                        alias.name if alias.asname else alias.name.partition(".")[0]
                    )
            elif isinstance(node, ast.ImportFrom):
                origin = "." * node.level + (node.module or "")
                for alias in node.names:
                    found[alias.asname or alias.name] = f"{origin}{'.' if node.module else ''}{alias.name}"
        return found

    def at(self, node: ast.expr | ast.stmt | ast.alias | ast.keyword, length: int | None = None) -> Region:
        """Return the region of a node, or of its first `length` code points."""
        line, column = self._place(node.lineno, node.col_offset)
        if length is not None:
            return Region(line, column, line, column + length)
        end = self._place(node.end_lineno or node.lineno, node.end_col_offset or node.col_offset)
        return Region(line, column, *end)

    def name_of(self, node: Scope) -> Region:
        """Return the region of a function's or class's name."""
        line, column = self._place(node.lineno, node.col_offset)
        text = self._lines[node.lineno - 1] if node.lineno <= len(self._lines) else ""
        match = re.compile(rf"(?:async\s+def|def|class)\s+(?={re.escape(node.name)}\b)").match(text, column - 1)
        start = match.end() + 1 if match else column
        return Region(line, start, line, start + len(node.name))

    def resolve(self, node: ast.expr) -> str | None:
        """Return the dotted name that an expression means, through the file's imports; `None` for anything else."""
        name = dotted(node)
        if name is None:
            return None
        head, _, rest = name.partition(".")
        origin = self.imports.get(head, head)
        return f"{origin}.{rest}" if rest else origin

    @functools.cached_property
    def _lines(self) -> list[str]:
        # As CPython's tokenizer counts: form feeds and the separators of `str.splitlines` are no line ends.
        return re.split(r"\r\n|\n|\r", self.text)

    @functools.cached_property
    def _moved(self) -> bool:
        """Whether a bare carriage return makes CPython's lines other than the report's, which end at `\\n` only."""
        return re.search(r"\r(?!\n)", self.text) is not None

    def _place(self, line: int, offset: int) -> tuple[int, int]:
        text = self._lines[line - 1] if 0 < line <= len(self._lines) else ""
        column = (
            offset if text.isascii() else len(text.encode("utf-8", "surrogatepass")[:offset].decode("utf-8", "replace"))
        )
        if not self._moved:
            return line, column + 1
        starts = [0, *(match.end() for match in re.finditer(r"\r\n|\n|\r", self.text))]
        at = starts[line - 1] + column if line <= len(starts) else len(self.text)
        before = self.text[:at]
        return before.count("\n") + 1, at - (before.rfind("\n") + 1) + 1

    @functools.cached_property
    def _walked(self) -> tuple[list[tuple[ast.AST, Definition | None]], list[Definition]]:
        nodes: list[tuple[ast.AST, Definition | None]] = []
        definitions: list[Definition] = []
        stack: list[tuple[ast.AST, Definition | None, str, str | None]] = [(self.module, None, "", None)]
        # Every node is pushed once, so the loop ends with the tree.
        while stack:
            node, owner, prefix, class_name = stack.pop()
            nodes.append((node, owner))
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                definition = Definition(node, prefix + node.name, class_name)
                definitions.append(definition)
                # Decorators and defaults run outside of the function.
                outside = {id(part) for part in (*node.decorator_list, *node.args.defaults, *node.args.kw_defaults)}
                for child in _children(node):
                    where = owner if id(child) in outside else definition
                    stack.append((child, where, f"{definition.qualified}.", None))
                continue
            if isinstance(node, ast.ClassDef):
                prefix = f"{prefix}{node.name}."
                class_name = prefix[:-1]
            stack.extend((child, owner, prefix, class_name) for child in _children(node))
        return nodes, definitions


def dotted(node: ast.expr) -> str | None:
    """Return `a.b.c` for names and attributes of names; `None` for anything else."""
    parts: list[str] = []
    current = node
    for _ in range(64):
        if isinstance(current, ast.Name):
            parts.append(current.id)
            return ".".join(reversed(parts))
        if not isinstance(current, ast.Attribute):
            return None
        parts.append(current.attr)
        current = current.value
    return None


def _children(node: ast.AST) -> Iterator[ast.AST]:
    """Yield the children, last first, since a stack turns them round."""
    return reversed(list(ast.iter_child_nodes(node)))
