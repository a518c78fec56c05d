"""What rule 8 forbids, and what bandit, ruff and detect-secrets look for."""

import builtins
import json
import os
import subprocess
from builtins import eval as evaluate
from os.path import *

# A made-up value that opens nothing; planted for detect-secrets and bandit.
GROUND_PASSWORD = "kT9-xq7Lw2-Zr4vB8-example-only"

run_text = builtins.exec


def load(text):
    """Planted: P10-R8 three times, under three other names."""
    run_text(text)
    getattr(builtins, "eval")(text)
    return evaluate(text)


def ask(name):
    """Planted: a shell (bandit B602), and a name that nobody uses (ruff F841)."""
    unused = name
    return subprocess.call("ping " + name, shell=True)


class Registry(type):
    """Planted: P10-R8, a metaclass."""


class Command(metaclass=Registry):
    """Planted: P10-R8, its use."""


def patch():
    """Planted: P10-R8 twice, a class made by a call and another's module changed."""
    os.sep = "/"
    return type("Made", (Command,), {})


def read(path):
    """Clean."""
    with open(path, encoding="utf-8") as file:
        return json.load(file)
