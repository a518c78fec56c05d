"""Validating calls count as checks."""


def validate_size(size):  # case: P10-R5 clean
    if not isinstance(size, int):
        raise TypeError("size")
    if size < 0:
        raise ValueError("size")


def check_name(name):
    assert isinstance(name, str)
    assert name


def reserve(name, size):
    check_name(name)
    validate_size(size)
    return name, size
