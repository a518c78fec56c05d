"""No checks."""


def twice(n):  # case: P10-R5 violation
    return n + n


def thrice(n):
    return n + n + n
