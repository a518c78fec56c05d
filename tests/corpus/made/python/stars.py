"""Star imports."""

from os.path import *  # case: P10-R8 violation
from os import path  # case: P10-R8 clean

TEXT = """
from os import *  # case: P10-R8 clean
"""


def spread(*args, **names):  # case: P10-R8 clean -- other stars
    return path.join(*args), names
