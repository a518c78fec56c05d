"""What grows without a limit, and what does not."""

import asyncio
import collections
import functools
import queue
from collections import deque
from functools import cache
from functools import lru_cache as remember

RESULTS = {}  # case: P10-R3 violation -- only grows
SEEN = set()  # case: P10-R3 violation -- only grows
RECENT = collections.OrderedDict()  # case: P10-R3 clean -- the oldest is put out
LAST = deque(maxlen=10)  # case: P10-R3 clean
HISTORY = []  # case: P10-R3 clean -- emptied
LOG: list[str] = []  # case: P10-R3 violation -- with a type, only grows
COLOURS = {"red": 1, "green": 2}  # case: P10-R3 clean -- nobody changes it
PER_USER = collections.defaultdict(list)  # case: P10-R3 violation -- grows by being asked
KNOWN = []  # case: P10-R3 clean -- filled while the module is read
KNOWN.append("first")
CAPPED = []  # case: P10-R3 clean -- does not grow beyond its limit
REBOUND = []  # case: P10-R3 clean -- put away and begun anew


@functools.lru_cache(maxsize=None)  # case: P10-R3 violation
def squared(n):
    return n * n


@cache  # case: P10-R3 violation
def cubed(n):
    return n * n * n


@remember(maxsize=128)  # case: P10-R3 clean
def doubled(n):
    return n + n


@functools.lru_cache  # case: P10-R3 clean -- 128 where nothing is said
def halved(n):
    return n / 2


@remember(None)  # case: P10-R3 violation -- by position
def negated(n):
    return -n


@functools.lru_cache(maxsize=None, typed=True)  # case: P10-R3 violation
def named(n):
    return str(n)


class Settings:
    @functools.cached_property  # case: P10-R3 clean -- one value an object
    def path(self):
        return "settings"


def queues():
    return (
        queue.Queue(),  # case: P10-R3 violation
        queue.Queue(maxsize=100),  # case: P10-R3 clean
        queue.Queue(100),  # case: P10-R3 clean
        queue.Queue(maxsize=0),  # case: P10-R3 violation -- nought is endless
        queue.SimpleQueue(),  # case: P10-R3 violation -- never has a limit
        asyncio.Queue(),  # case: P10-R3 violation
        asyncio.Queue(maxsize=8),  # case: P10-R3 clean
        queue.PriorityQueue(),  # case: P10-R3 violation
        queue.LifoQueue(4),  # case: P10-R3 clean
    )


def compute(n):
    if n not in RESULTS:
        RESULTS[n] = n * n
    SEEN.add(n)
    LOG.append(str(n))
    PER_USER[n].append(n)
    LAST.append(n)
    return RESULTS[n]


def recall(key, value):
    RECENT[key] = value
    if len(RECENT) > 100:
        RECENT.popitem(last=False)


def record(event):
    HISTORY.append(event)


def flush():
    HISTORY.clear()


def cap(value):
    if len(CAPPED) < 50:
        CAPPED.append(value)


def begin():
    global REBOUND
    REBOUND = []


def add(value):
    REBOUND.append(value)


def local(items):
    found = []  # case: P10-R3 clean -- ends with the call
    found.extend(items)
    return found
