"""A function of the name getattr that is not the built-in one."""


def getattr(table, key):
    return table[key]


def call(table, key):
    return getattr(table, "close")()  # case: P10-R9 clean
