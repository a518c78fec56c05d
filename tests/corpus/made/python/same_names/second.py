"""Has functions of its own by the same names."""


def save(path):  # case: P10-R1 clean -- its load is the one below
    return load(path)


def load(path):  # case: P10-R1 clean
    return path


def run(path):  # case: P10-R1 clean
    return save(path)
