"""Loops that may go on for ever, or whose bound cannot be seen."""

import collections
import itertools
import itertools as it
import time
from itertools import cycle


def waiting(source):
    while not source.ready():  # case: P10-R2 violation
        time.sleep(1)


def reading(source):
    while True:  # case: P10-R2 violation -- a way out that nothing counts to
        data = source.read()
        if not data:
            break


def returning(source):
    while True:  # case: P10-R2 violation -- a return is a way out
        if source.ready():
            return source.read()


def flagged(source):
    running = True
    while running:  # case: P10-R2 violation
        running = source.step()


def uncounted(n, limit):
    while n < limit:  # case: P10-R2 violation -- nothing moves the counter
        print(n)


def backwards(n):
    while n < 10:  # case: P10-R2 violation -- moves away from its limit
        n -= 1


def moving(n, limit):
    while n < limit:  # case: P10-R2 violation -- the limit moves with it
        n += 1
        limit += 1


def sometimes(source, n):
    while n < 10:  # case: P10-R2 violation -- counts on one path only
        if source.ready():
            n += 1


def either(source, n):
    while source.ready() or n < 10:  # case: P10-R2 violation -- the counter alone does not end it
        n += 1


def counted_unread(source):
    n = 0
    while not source.ready():  # case: P10-R2 violation -- counts, and never asks
        n += 1
    return n


def refilled(queue):
    while queue:  # case: P10-R2 violation -- refilled while it is drained
        node = queue.pop()
        queue.extend(node.children)


def counting():
    for i in itertools.count():  # case: P10-R2 violation
        print(i)
        if input() == "stop":
            break


def aliased(names):
    for name in it.cycle(names):  # case: P10-R2 violation
        if not name.step():
            return


def imported(names):
    for name in cycle(names):  # case: P10-R2 violation
        if name.last:
            break


def sentinel(source):
    for line in iter(source.readline, ""):  # case: P10-R2 violation -- iter with a sentinel
        print(line)


def endless_zip(names):
    for i, name in zip(itertools.count(), itertools.cycle(names)):  # case: P10-R2 violation -- both are endless
        if not name:
            return i


def repeating(task):
    for _ in itertools.repeat(None):  # case: P10-R2 violation
        if task.step():
            break


def growing(items):
    for item in items: items.append(item)  # case: P10-R2 violation -- a list that grows as it is walked


def growing_attribute(tree):
    for node in tree.nodes: tree.nodes.extend(node.children)  # case: P10-R2 violation


def enumerated(items):
    for i, item in enumerate(items): items.insert(0, item)  # case: P10-R2 violation -- still the same list


def comprehended():
    return [i for i in itertools.count() if i % 2]  # case: P10-R2 violation -- a list of all odd numbers


def matching(source):
    while True:  # case: P10-R2 violation -- left by a case
        match source.read():
            case None:
                break
            case collections.deque():
                continue


async def polling(source):
    while not await source.ready():  # case: P10-R2 violation
        await source.turn()


def with_else(source):
    while source.next():  # case: P10-R2 violation
        pass
    else:
        print("done")


def inner_break(source):
    while True:  # case: P10-R2 violation -- the return leaves it, the break does not
        for item in source:
            if item.bad:
                break
            if item.last:
                return item
