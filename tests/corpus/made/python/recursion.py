"""Recursion within one file, and what only looks like it."""

import functools


def factorial(n):  # case: P10-R1 violation
    return 1 if n < 2 else n * factorial(n - 1)


def even(n):  # case: P10-R1 violation -- by way of odd
    return n == 0 or odd(n - 1)


def odd(n):  # case: P10-R1 violation
    return n != 0 and even(n - 1)


@functools.lru_cache(maxsize=64)
def fibonacci(n):  # case: P10-R1 violation -- remembering its answers does not bound its depth
    return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)


def doubled(function):
    @functools.wraps(function)
    def wrapper(value):  # case: P10-R1 clean -- calls what was given, by its own name
        return function(value) * 2

    return wrapper


class Tree:
    def __init__(self, children):
        self.children = children

    def depth(self):  # case: P10-R1 violation -- the method of each child is this one
        return 1 + max((child.depth() for child in self.children), default=0)

    def size(self):  # case: P10-R1 violation -- by way of a method of the same object
        return 1 + self._below()

    def _below(self):  # case: P10-R1 violation
        return sum(Tree.size(child) for child in self.children)

    def close(self):  # case: P10-R1 clean -- a file is no tree
        with open("log", "w") as log:
            log.close()

    @classmethod
    def parse(cls, text):  # case: P10-R1 violation -- through the class
        return cls([cls.parse(part) for part in text.split(";") if part != text])


class Logged(Tree):
    def close(self):  # case: P10-R1 clean -- the parent's
        super().close()


def outer(n):  # case: P10-R1 clean -- only the function within calls itself
    def inner(m):  # case: P10-R1 violation
        return 0 if m == 0 else inner(m - 1)

    return inner(n)


def shadowed(shadowed):  # case: P10-R1 clean -- calls its argument
    return shadowed(1)


def quoted():  # case: P10-R1 clean -- text only
    """Unlike quoted() this has an end."""
    return "quoted()"


def by_partial(n):  # case: P10-R1 violation -- hidden in a partial
    again = functools.partial(by_partial, n - 1)
    return again() if n else 0


countdown = lambda n: n and countdown(n - 1)  # case: P10-R1 violation -- a named lambda


async def retry(attempt):  # case: P10-R1 violation -- awaited, and still itself
    if attempt:
        await retry(attempt - 1)


def spread(items):  # case: P10-R1 violation -- a generator that delegates to itself
    for item in items:
        if isinstance(item, list):
            yield from spread(item)
        else:
            yield item


def rebound(n):  # case: P10-R1 clean -- the name is a local here
    rebound = str
    return rebound(n)


def naïve(n):  # case: P10-R1 violation -- a name beyond ASCII
    return naïve(n - 1) if n else 0


def listing():  # case: P10-R1 clean -- passes itself on as a value, which nobody here calls
    return [listing.__name__]
