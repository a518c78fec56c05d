"""No functions, so there is no average."""

LIMIT = 10
assert LIMIT > 0  # case: P10-R5 clean
