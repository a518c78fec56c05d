"""Calls the writer, which calls back: a cycle over two modules."""

from . import writer


def read(depth):  # case: P10-R1 violation
    return writer.write(depth - 1) if depth else 0


def peek(depth):  # case: P10-R1 clean -- leads into the cycle and is not in it
    return read(depth)
