"""Source made into code, and what only sounds like it."""

import ast
import builtins
import re
from builtins import eval as compute


def direct(text):
    eval(text)  # case: P10-R8 violation
    exec(text)  # case: P10-R8 violation
    compile(text, "x", "exec")  # case: P10-R8 violation
    builtins.eval(text)  # case: P10-R8 violation
    compute(text)  # case: P10-R8 violation
    __builtins__["exec"](text)  # case: P10-R8 violation
    getattr(builtins, "eval")(text)  # case: P10-R8 violation
    __import__("builtins").exec(text)  # case: P10-R8 violation


run = exec


def renamed(text):
    run(text)  # case: P10-R8 violation -- an alias of the module


def similar(text, frame, model):
    re.compile(text)  # case: P10-R8 clean
    ast.literal_eval(text)  # case: P10-R8 clean
    model.eval()  # case: P10-R8 clean -- a method of that name
    frame.eval("a + b")  # case: P10-R8 clean -- a method of that name
    ast.parse(text)  # case: P10-R8 clean -- a tree, no code
    print("eval(text)")  # case: P10-R8 clean


def mapped(texts):
    return list(map(eval, texts))  # case: P10-R8 violation -- handed on to be called


def own(compile):
    return compile("a")  # case: P10-R8 clean -- an argument of that name
