"""A return under a condition on an argument is a check."""


def first(items):  # case: P10-R5 clean
    if items is None:
        return None
    if not items:
        return None
    return items[0]
