"""Coroutines have the same rules."""

import asyncio

WAITING = asyncio.Queue()  # case: P10-R3 violation


async def consume():
    while True:  # case: P10-R2 clean -- no way out
        print(await WAITING.get())


async def pump(source):
    async for item in source:  # case: P10-R2 clean -- the source has its end elsewhere
        await WAITING.put(item)


async def until(event):
    while not event.is_set():  # case: P10-R2 violation
        await asyncio.sleep(1)


async def cancelled(task):
    try:
        await task
    except asyncio.CancelledError:  # case: P10-R7 violation -- swallowed
        pass


async def guarded(task):
    async with asyncio.timeout(5):
        await task  # case: P10-R7 clean -- what a task gives cannot be seen
