"""Calls whose callee is chosen by a text."""

import importlib
import operator


def dispatch(thing, name):
    getattr(thing, name)()  # case: P10-R9 violation
    getattr(thing, "close")()  # case: P10-R9 clean -- a literal name
    getattr(thing, "on_" + name)()  # case: P10-R9 violation
    getattr(thing, f"on_{name}")(1)  # case: P10-R9 violation
    getattr(thing, "stop", print)()  # case: P10-R9 clean -- a literal name and a default
    size = getattr(thing, name)  # case: P10-R9 clean -- data, not called
    print(size, getattr(thing, name))  # case: P10-R9 clean -- print is named
    globals()[name]()  # case: P10-R9 violation
    locals()[name]()  # case: P10-R9 violation
    vars(thing)[name]()  # case: P10-R9 violation
    thing.__dict__[name](thing)  # case: P10-R9 violation
    operator.methodcaller(name)(thing)  # case: P10-R9 violation
    globals()["dispatch"]  # case: P10-R9 clean -- nothing is called
    getattr(importlib.import_module(name), "main")()  # case: P10-R9 violation -- of a computed module


def fetched(thing, name):
    handler = getattr(thing, name)
    handler()  # case: P10-R9 violation -- fetched one line before


def literal_by_name(thing):
    name = "close"
    getattr(thing, name)()


TABLE = {"a": print, "b": repr}


def tabled(key):
    TABLE[key](key)  # case: P10-R9 clean -- a table of functions written down, no names


async def awaited(thing, name):
    await getattr(thing, name)()  # case: P10-R9 violation


class Proxy:
    def __init__(self, inner):
        self.inner = inner

    def __getattr__(self, name):  # case: P10-R9 violation
        return getattr(self.inner, name)


class Watched:
    def __getattribute__(self, name):  # case: P10-R9 violation
        return object.__getattribute__(self, name)


class Plain:
    def __getitem__(self, key):  # case: P10-R9 clean -- items, not attributes
        return key

    def __setattr__(self, name, value):  # case: P10-R9 clean -- hides no call
        object.__setattr__(self, name, value)

    @property
    def size(self):  # case: P10-R9 clean -- an attribute that is written down
        return 1


def __getattr__(name):  # case: P10-R9 violation -- the module's hook
    raise AttributeError(name)
