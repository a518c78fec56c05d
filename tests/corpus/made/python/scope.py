"""State of the module, and who changes it."""

import threading

count = 0
total = 0
names = []
table = {"a": 1}
current = None
limits = {}
lock = threading.Lock()
local = threading.local()


def read():
    global count; return count  # case: P10-R6 clean -- read, not written


def write():
    global count; count += 1  # case: P10-R6 violation


def assigned(value):
    global total  # case: P10-R6 violation
    total = value


def bound_by_loop(items):
    global current  # case: P10-R6 violation -- a loop writes it
    for current in items:
        print(current)


def appended(name):
    names.append(name)  # case: P10-R6 violation


def keyed(key, value):
    table[key] = value  # case: P10-R6 violation


def deleted(key):
    del table[key]  # case: P10-R6 violation


def updated(values):
    limits.update(values)  # case: P10-R6 violation


def shadowed(name):
    names = []
    names.append(name)  # case: P10-R6 clean -- a local of the same name
    return names


def parameter(table, key):
    table[key] = 1  # case: P10-R6 clean -- an argument of the same name


def looked_up(key):
    return table.get(key)  # case: P10-R6 clean


def copied(key, value):
    mine = dict(table)
    mine[key] = value  # case: P10-R6 clean -- a copy
    return mine


def outer():
    seen = 0

    def inner():
        nonlocal seen; seen += 1  # case: P10-R6 clean -- of the function around it

    inner()
    return seen


class Counter:
    total = 0

    def add(self):
        self.total += 1  # case: P10-R6 clean -- of the object


names.sort()  # case: P10-R6 clean -- by the module itself
table["b"] = 2  # case: P10-R6 clean -- by the module itself


def through_globals(value):
    globals()["total"] = value  # case: P10-R6 violation -- by another way


def swapped():
    global count, total; count, total = total, count  # case: P10-R6 violation


def rebound_import():
    global threading; import threading  # case: P10-R6 violation -- an import binds
