# coding: no-such-encoding
"""Names an encoding that does not exist; what is ASCII can still be read."""


def again():  # case: P10-R1 violation
    return again()
