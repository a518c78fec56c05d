"""Python 2, which today's parsers do not take."""


def old(text):
    print "old", text
    try:
        exec text
    except ValueError, problem:
        raise KeyError, problem


def loop(source):
    while not source.ready():  # case: P10-R2 violation
        pass
