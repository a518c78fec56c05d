"""Conditions that have nothing to do with an argument are no checks."""

import os


def home(user):  # case: P10-R5 violation
    if os.name == "nt":
        raise OSError("no home")
    if os.environ.get("HOME"):
        return os.environ["HOME"]
    return "/home/" + user
