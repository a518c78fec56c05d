"""Two checks a function, by different forms."""


def area(width, height):  # case: P10-R5 clean
    if width < 0:
        raise ValueError("width")
    if height < 0:
        raise ValueError("height")
    return width * height


def ratio(a, b):
    assert a >= 0
    assert b > 0
    return a / b
