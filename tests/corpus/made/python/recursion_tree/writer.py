"""The other half; the import lies in the function to avoid a circle."""


def write(depth):  # case: P10-R1 violation
    from .reader import read as fetch

    return fetch(depth - 1) if depth else 0


def flush(depth):  # case: P10-R1 clean -- nobody of the cycle calls it
    return depth
