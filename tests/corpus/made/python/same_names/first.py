"""Functions of the same names as in second.py, which is not this tree's recursion."""

from second import save


def load(path):  # case: P10-R1 clean
    return save(path)


def run(path):  # case: P10-R1 clean
    return load(path)
