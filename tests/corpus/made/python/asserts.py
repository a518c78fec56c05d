"""Assertions that change something, that cannot fail, and that are right."""


def checked(items, n):
    assert items  # case: P10-R5 clean
    assert n > 0, "n"  # case: P10-R5 clean
    assert items.pop()  # case: P10-R5 violation -- takes one away
    assert (m := n) > 0  # case: P10-R5 violation -- binds
    assert (n > 0, "n")  # case: P10-R5 violation -- a tuple that is not empty
    assert True  # case: P10-R5 violation
    assert False, "not reached"  # case: P10-R5 clean -- always fails, on purpose
    assert "n is positive"  # case: P10-R5 violation -- a text that is not empty
    assert 1  # case: P10-R5 violation
    assert ()  # case: P10-R5 clean -- always fails
    assert isinstance(n, int)  # case: P10-R5 clean
    assert len(items) >= 0  # case: P10-R5 violation -- a length is never less
    assert n == n  # case: P10-R5 violation
    assert n or True  # case: P10-R5 violation
    assert n is not None and m  # case: P10-R5 clean
    assert items.append(n) is None  # case: P10-R5 violation -- adds one
    assert all(item > 0 for item in items)  # case: P10-R5 clean
    assert next(iter(items))  # case: P10-R5 clean -- of an iterator made for it
    assert [n]  # case: P10-R5 violation -- a list that is not empty
    assert not items.count(n)  # case: P10-R5 clean
    assert f"{n}"  # case: P10-R5 clean -- may be empty, however odd
    assert lambda: n  # case: P10-R5 violation -- a function is true
    assert items.setdefault(n, 0) == 0  # case: P10-R5 violation -- puts one in where there was none
    assert items.get(n) == 0  # case: P10-R5 clean
    assert n in items, items.pop()  # case: P10-R5 clean -- the message is made when it has failed


async def awaited(channel):
    assert await channel.receive()  # case: P10-R5 violation -- takes a message away
    assert channel.open  # case: P10-R5 clean


def generated(source):
    assert (yield source)  # case: P10-R5 violation -- gives control away
    assert source  # case: P10-R5 clean
