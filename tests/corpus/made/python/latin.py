# -*- coding: latin-1 -*-
"""Café: bytes that are not UTF-8."""


def café(n):  # case: P10-R1 violation
    return café(n - 1) if n else "é"


def read(source):
    while source:  # case: P10-R2 violation -- nothing is taken from it
        print("ü", source)
    eval("1")  # case: P10-R8 violation
    return "eval(é)"  # case: P10-R8 clean
