"""Tabs."""


def wait(source):
	while not source.ready():  # case: P10-R2 violation
		if source.late:
			eval("1")  # case: P10-R8 violation
	try:
		source.close()
	except ValueError:  # case: P10-R7 violation
		pass


def count(n):
	while n < 10:  # case: P10-R2 clean
		n += 1
