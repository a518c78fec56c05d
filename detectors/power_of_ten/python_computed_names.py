"""Rule 9 in Python: which code a call reaches shows in its name."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from detectors.detector import FileRule
from detectors.model import Finding
from detectors.parsing import ParsedFile
from detectors.power_of_ten.python_vocabulary import DETECTOR, PYTHON, as_python
from detectors.python_parsing import MAX_ASSIGNED, PythonFile, Scope

__all__ = ["PythonAttributeHook", "PythonComputedCall"]

NAMESPACES = frozenset({"builtins.globals", "builtins.locals", "builtins.vars"})
MAKERS = frozenset({"operator.attrgetter", "operator.methodcaller"})
HOOKS = frozenset({"__getattr__", "__getattribute__", "__setattr__", "__delattr__"})


class PythonComputedCall(FileRule):
    """
    A call through a name that is computed.

    Why: which code runs cannot be told by reading, so neither recursion nor what is reached can be shown.
    Instead: a dictionary that names the functions, or an `if` over the cases.
    Reported: `getattr(x, name)()`, `globals()[name]()`, `vars(x)[name]()`, `x.__dict__[name]()`, the same through an
    alias, and `operator.attrgetter` or `methodcaller` with a computed name.
    Not found: names that another function computes and hands over as a function.
    Source: Holzmann, "The Power of Ten", IEEE Computer 39(6), 2006, rule 9, read across to Python.
    """

    id = "P10-R9-python-computed-call"
    detector = DETECTOR
    languages = PYTHON
    examples = (
        """
HANDLERS = {"a": print}

def f(x, name, getter):
    getattr(x, "close")()
    value = getattr(x, name)
    HANDLERS[name]()
    globals()["f"](x, name, getter)
    return value, getter(x, name)()
""",
        """
import operator

def f(x, name):
    getattr(x, name)()  # expect: P10-R9-python-computed-call
    globals()[name]()  # expect: P10-R9-python-computed-call
    vars(x)["do_" + name](3)  # expect: P10-R9-python-computed-call
    x.__dict__[name]()  # expect: P10-R9-python-computed-call
    method = getattr(x, f"on_{name}", None)
    if method:
        method()  # expect: P10-R9-python-computed-call
    return operator.methodcaller(name)(x)  # expect: P10-R9-python-computed-call
""",
    )

    def check(self, parsed: ParsedFile) -> Iterator[Finding]:
        """Yield each call of something that a computed name found."""
        unit = as_python(parsed)
        for scope, call, _, _ in unit.calls:
            # A method is called by the name that is written.
            if call.func.__class__ is not ast.Attribute and _computed(unit, scope, call.func):
                yield self.finding(unit.at(call), "which function this calls is computed; name it")


class PythonAttributeHook(FileRule):
    """
    An attribute hook: `__getattr__` and kin.

    Why: names that stand nowhere become attributes, and a misspelt one becomes a call to the hook.
    Instead: plain attributes, properties, or a method that takes the name.
    Not found: descriptors.
    Source: Holzmann, "The Power of Ten", IEEE Computer 39(6), 2006, rule 9, read across to Python.
    """

    id = "P10-R9-python-attribute-hook"
    detector = DETECTOR
    languages = PYTHON
    examples = (
        "class A:\n    def get(self, name):\n        return name\n\ndef __dir__():\n    return []\n",
        """
class A:
    def __getattr__(self, name):  # expect: P10-R9-python-attribute-hook
        return name

def __getattr__(name):  # expect: P10-R9-python-attribute-hook
    return name
""",
    )

    def check(self, parsed: ParsedFile) -> Iterator[Finding]:
        """Yield each hook of a class or module, at its name."""
        unit = as_python(parsed)
        for scope in unit.functions:
            assert scope.parent is not None, "a function stands in a module at least"
            if scope.name in HOOKS and scope.parent.kind in ("class", "module"):
                yield self.finding(unit.name_of(scope), f"{scope.name} makes attributes that stand nowhere")


def _computed(unit: PythonFile, scope: Scope, called: ast.expr) -> bool:
    if isinstance(called, (ast.Call, ast.Subscript)):
        return _computes(unit, scope, called)
    if not isinstance(called, ast.Name):
        return False
    binder, values = unit.lookup(called.id, scope)
    assert binder is not None or not values, "what no scope binds has no value"
    if len(values) > MAX_ASSIGNED:
        return False  # of so many, which one is called cannot be told anyway
    return any(
        isinstance(value, (ast.Call, ast.Subscript))
        and _computes(unit, scope, value)
        # What makes a getter is reported where it is called on the spot only.
        and not (isinstance(value, ast.Call) and unit.dotted(value.func, scope) & MAKERS)
        for value in values
    )


def _computes(unit: PythonFile, scope: Scope, item: ast.Call | ast.Subscript) -> bool:
    """Tell whether an expression looks a name up that is no constant."""
    if isinstance(item, ast.Call):
        if "builtins.getattr" in (names := unit.dotted(item.func, scope)):
            return len(item.args) > 1 and not isinstance(item.args[1], ast.Constant)
        return bool(names & MAKERS) and bool(item.args) and not isinstance(item.args[0], ast.Constant)
    if isinstance(item.slice, ast.Constant):
        return False
    if isinstance(item.value, ast.Attribute):
        return item.value.attr == "__dict__"
    return isinstance(item.value, ast.Call) and bool(unit.dotted(item.value.func, scope) & NAMESPACES)
