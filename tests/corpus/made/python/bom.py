"""A mark of the byte order before everything."""

from os import *  # case: P10-R8 violation


def again():  # case: P10-R1 violation
    return again()
