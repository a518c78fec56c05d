"""Generators: an endless one is the taker's matter, an unbounded wait is not."""

import itertools


def numbers():
    n = 0
    while True:  # case: P10-R2 clean -- endless, no way out
        yield n
        n += 1


def lines(source):
    while line := source.readline():  # case: P10-R2 violation
        yield line


def first_ten():
    return [n for n, _ in zip(numbers(), range(10))]  # case: P10-R2 clean


def first_found(wanted):
    return next(n for n in itertools.count() if n == wanted)  # case: P10-R2 violation -- until it is found


def paired():
    return dict(zip("abc", itertools.count()))  # case: P10-R2 clean -- ends with the letters
