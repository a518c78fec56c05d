"""A file with a syntax error is analysed, and what can be known is said."""


def before(text):
    eval(text)  # case: P10-R8 violation
    while text.ready():  # case: P10-R2 violation
        pass


def broken(:
    return (


def after(text):
    exec(text)  # case: P10-R8 violation -- behind the error
    return text  # case: P10-R8 clean
