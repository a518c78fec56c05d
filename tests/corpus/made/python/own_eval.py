"""A module that defines a function of the name itself."""


def eval(text):
    return len(text)


print(eval("1 + 1"))  # case: P10-R8 clean -- the one above
