"""Assertions that cannot fail check nothing."""


def scale(n):  # case: P10-R5 violation -- counted, they are none
    assert True  # case: P10-R5 violation
    assert (n > 0, "n")  # case: P10-R5 violation
    return n * 10
