"""Loops whose bound can be shown by looking."""

import itertools
import time

LIMIT = 100


def counted(items):
    i = 0
    while i < LIMIT:  # case: P10-R2 clean
        items.append(i)
        i += 1


def counted_down(n):
    while n > 0:  # case: P10-R2 clean
        n -= 1


def guarded(source):
    tries = 0
    while True:  # case: P10-R2 clean -- a counter that leaves it
        tries += 1
        if tries > LIMIT:
            raise TimeoutError("too many tries")
        if source.ready():
            return source.read()


def until_deadline(source, seconds):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:  # case: P10-R2 clean
        if source.ready():
            return source.read()
    return None


def deadline_inside(source):
    end = time.monotonic() + 5
    while not source.ready():  # case: P10-R2 clean -- a deadline in the body
        if time.monotonic() >= end:
            raise TimeoutError("not ready")
        time.sleep(0.1)


def scheduler(tasks):
    while True:  # case: P10-R2 clean -- no way out at all
        for task in tasks:
            if task.done:
                break
            task.step()


def server(queue):
    while 1:  # case: P10-R2 clean -- no way out, spelled otherwise
        queue.get()


def drained():
    pending = [1, 2, 3]
    while pending:  # case: P10-R2 clean -- takes one in each pass, adds none
        print(pending.pop())


def both(items, n):
    while items.busy() and n < LIMIT:  # case: P10-R2 clean -- the counter limits it whatever the other half says
        n += 1


def walrus(n):
    while (n := n - 1) > 0:  # case: P10-R2 clean -- counts in its condition
        print(n)


def sliced():
    for i in itertools.islice(itertools.count(), 10):  # case: P10-R2 clean
        print(i)


def zipped(names):
    for i, name in zip(itertools.count(1), names):  # case: P10-R2 clean -- ends with the names
        print(i, name)


def broken():
    for i in itertools.count():  # case: P10-R2 clean -- its own number is the guard
        if i >= LIMIT:
            break
        print(i)


def repeated():
    for _ in itertools.repeat(None, 5):  # case: P10-R2 clean -- five times
        print("again")


def walked(items):
    for item in list(items): items.append(item)  # case: P10-R2 clean -- walks a copy


def iterated(items):
    for item in iter(items):  # case: P10-R2 clean -- iter of one argument
        print(item)


def quoted():
    return """
while True:  # case: P10-R2 clean
    if done: break
"""


def taken_while():
    for i in itertools.takewhile(lambda n: n < LIMIT, itertools.count()):  # case: P10-R2 clean
        print(i)


def other_list(items, found):
    for item in items: found.append(item)  # case: P10-R2 clean -- another list grows


async def ticks(clock):
    for i in range(LIMIT):  # case: P10-R2 clean
        await clock.tick(i)
