"""Names bound far wider than they are used."""

buffer = []  # case: P10-R6 violation -- one function uses it, and clears it first
LIMIT = 10  # case: P10-R6 clean -- a constant
_cursor = None  # case: P10-R6 violation -- one function only
shared = {}  # case: P10-R6 clean -- two functions use it


def collect(items):
    buffer.clear()
    buffer.extend(items[:LIMIT])
    return list(buffer)


def scan(items):
    global _cursor
    _cursor = 0
    while _cursor < len(items):
        _cursor += 1
    return _cursor


def put(key, value):
    shared[key] = value


def get(key):
    return shared.get(key)
