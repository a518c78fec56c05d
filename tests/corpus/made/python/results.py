"""Results that are looked at, and results that are dropped."""

import asyncio
import os
import subprocess
from subprocess import run


def parse(text):
    return int(text)


def shout(text):
    print(text)


def maybe(text):
    if text:
        return text
    return None


def early(text):
    if not text:
        return
    print(text)


async def fetch(key):
    return key


def drop_own(text):
    parse(text)  # case: P10-R7 violation
    shout(text)  # case: P10-R7 clean -- gives none
    maybe(text)  # case: P10-R7 violation -- gives a text or none
    early(text)  # case: P10-R7 clean -- leaves early with none
    _ = parse(text)  # case: P10-R7 clean -- on purpose
    print(parse(text))  # case: P10-R7 clean
    return [parse(text)]  # case: P10-R7 clean


def drop_commands(command):
    subprocess.run(command)  # case: P10-R7 violation
    subprocess.run(command, check=True)  # case: P10-R7 clean -- raises
    run(command, check=False)  # case: P10-R7 violation -- no check, said aloud, and dropped
    done = subprocess.run(command)  # case: P10-R7 clean
    subprocess.call(command)  # case: P10-R7 violation -- gives a status
    subprocess.check_call(command)  # case: P10-R7 clean -- raises
    os.system("true")  # case: P10-R7 violation
    return done.returncode


def drop_texts(text):
    text.strip()  # case: P10-R7 violation
    "a,b".replace(",", ";")  # case: P10-R7 violation
    text = text.upper()  # case: P10-R7 clean
    sorted(text)  # case: P10-R7 violation
    text.encode().hex()  # case: P10-R7 violation
    return text.lower()  # case: P10-R7 clean


def drop_lists(items, other):
    items.sort()  # case: P10-R7 clean -- gives none
    items.append(1)  # case: P10-R7 clean
    items.pop()  # case: P10-R7 clean -- called to take away
    reversed(items)  # case: P10-R7 violation
    other.update(items)  # case: P10-R7 clean


async def drop_tasks(loop, pool):
    asyncio.create_task(fetch(1))  # case: P10-R7 violation
    task = asyncio.create_task(fetch(2))  # case: P10-R7 clean
    loop.create_task(fetch(3))  # case: P10-R7 violation
    pool.submit(parse, "4")  # case: P10-R7 violation
    await fetch(5)  # case: P10-R7 violation -- gives a key, which is dropped
    fetch(6)  # case: P10-R7 violation -- never even begun
    asyncio.ensure_future(fetch(7))  # case: P10-R7 violation
    asyncio.gather(fetch(8))  # case: P10-R7 violation -- neither kept nor awaited
    return await task  # case: P10-R7 clean


class Account:
    def __init__(self):
        self.sum = 0

    def add(self, amount):
        self.sum += amount
        return self.sum

    def twice(self, amount):
        self.add(amount)  # case: P10-R7 violation -- gives the new sum
        _ = self.add(amount)  # case: P10-R7 clean


def stop():
    raise SystemExit(1)


def last():
    stop()  # case: P10-R7 clean -- gives nothing
    Account()
