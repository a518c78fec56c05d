"""Lines that end in carriage return and line feed."""

import time


def wait(source):
    while not source.ready():  # case: P10-R2 violation
        time.sleep(1)
    try:
        source.close()
    except:  # case: P10-R7 violation
        pass


def again(n):  # case: P10-R1 violation
    return again(n - 1)


def count(n):
    while n < 10:  # case: P10-R2 clean
        n += 1
