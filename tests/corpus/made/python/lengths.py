"""Lengths at the limit of 60 lines, docstrings not counted."""

import functools


def exactly_sixty():  # case: P10-R4 clean
    total = 0
    total += 0
    total += 1
    total += 2
    total += 3
    total += 4
    total += 5
    total += 6
    total += 7
    total += 8
    total += 9
    total += 10
    total += 11
    total += 12
    total += 13
    total += 14
    total += 15
    total += 16
    total += 17
    total += 18
    total += 19
    total += 20
    total += 21
    total += 22
    total += 23
    total += 24
    total += 25
    total += 26
    total += 27
    total += 28
    total += 29
    total += 30
    total += 31
    total += 32
    total += 33
    total += 34
    total += 35
    total += 36
    total += 37
    total += 38
    total += 39
    total += 40
    total += 41
    total += 42
    total += 43
    total += 44
    total += 45
    total += 46
    total += 47
    total += 48
    total += 49
    total += 50
    total += 51
    total += 52
    total += 53
    total += 54
    total += 55
    total += 56
    return total


def sixty_one():  # case: P10-R4 violation
    total = 0
    total += 0
    total += 1
    total += 2
    total += 3
    total += 4
    total += 5
    total += 6
    total += 7
    total += 8
    total += 9
    total += 10
    total += 11
    total += 12
    total += 13
    total += 14
    total += 15
    total += 16
    total += 17
    total += 18
    total += 19
    total += 20
    total += 21
    total += 22
    total += 23
    total += 24
    total += 25
    total += 26
    total += 27
    total += 28
    total += 29
    total += 30
    total += 31
    total += 32
    total += 33
    total += 34
    total += 35
    total += 36
    total += 37
    total += 38
    total += 39
    total += 40
    total += 41
    total += 42
    total += 43
    total += 44
    total += 45
    total += 46
    total += 47
    total += 48
    total += 49
    total += 50
    total += 51
    total += 52
    total += 53
    total += 54
    total += 55
    total += 56
    total += 57
    return total


def documented():  # case: P10-R4 clean -- 66 lines with its docstring
    """
    Tells.

    At length.

    """
    total = 0
    total += 0
    total += 1
    total += 2
    total += 3
    total += 4
    total += 5
    total += 6
    total += 7
    total += 8
    total += 9
    total += 10
    total += 11
    total += 12
    total += 13
    total += 14
    total += 15
    total += 16
    total += 17
    total += 18
    total += 19
    total += 20
    total += 21
    total += 22
    total += 23
    total += 24
    total += 25
    total += 26
    total += 27
    total += 28
    total += 29
    total += 30
    total += 31
    total += 32
    total += 33
    total += 34
    total += 35
    total += 36
    total += 37
    total += 38
    total += 39
    total += 40
    total += 41
    total += 42
    total += 43
    total += 44
    total += 45
    total += 46
    total += 47
    total += 48
    total += 49
    total += 50
    total += 51
    total += 52
    total += 53
    total += 54
    total += 55
    total += 56
    return total


def documented_and_long():  # case: P10-R4 violation -- 64 lines with its docstring
    """
    Tells.
    """
    total = 0
    total += 0
    total += 1
    total += 2
    total += 3
    total += 4
    total += 5
    total += 6
    total += 7
    total += 8
    total += 9
    total += 10
    total += 11
    total += 12
    total += 13
    total += 14
    total += 15
    total += 16
    total += 17
    total += 18
    total += 19
    total += 20
    total += 21
    total += 22
    total += 23
    total += 24
    total += 25
    total += 26
    total += 27
    total += 28
    total += 29
    total += 30
    total += 31
    total += 32
    total += 33
    total += 34
    total += 35
    total += 36
    total += 37
    total += 38
    total += 39
    total += 40
    total += 41
    total += 42
    total += 43
    total += 44
    total += 45
    total += 46
    total += 47
    total += 48
    total += 49
    total += 50
    total += 51
    total += 52
    total += 53
    total += 54
    total += 55
    total += 56
    total += 57
    return total


def blanks():  # case: P10-R4 violation -- blank lines are lines
    total = 0
    total += 1
























































    total += 2
    return total


def comments():  # case: P10-R4 violation -- comments are lines
    total = 0
    # Adds nothing.
    # Adds nothing.
    # Adds nothing.
    # Adds nothing.
    # Adds nothing.
    # Adds nothing.
    # Adds nothing.
    # Adds nothing.
    # Adds nothing.
    # Adds nothing.
    # Adds nothing.
    # Adds nothing.
    # Adds nothing.
    # Adds nothing.
    # Adds nothing.
    # Adds nothing.
    # Adds nothing.
    # Adds nothing.
    # Adds nothing.
    # Adds nothing.
    # Adds nothing.
    # Adds nothing.
    # Adds nothing.
    # Adds nothing.
    # Adds nothing.
    # Adds nothing.
    # Adds nothing.
    # Adds nothing.
    # Adds nothing.
    # Adds nothing.
    # Adds nothing.
    # Adds nothing.
    # Adds nothing.
    # Adds nothing.
    # Adds nothing.
    # Adds nothing.
    # Adds nothing.
    # Adds nothing.
    # Adds nothing.
    # Adds nothing.
    # Adds nothing.
    # Adds nothing.
    # Adds nothing.
    # Adds nothing.
    # Adds nothing.
    # Adds nothing.
    # Adds nothing.
    # Adds nothing.
    # Adds nothing.
    # Adds nothing.
    # Adds nothing.
    # Adds nothing.
    # Adds nothing.
    # Adds nothing.
    # Adds nothing.
    # Adds nothing.
    # Adds nothing.
    # Adds nothing.
    return total


def commented_short():  # case: P10-R4 clean
    total = 0
    # Adds nothing.
    # Adds nothing.
    # Adds nothing.
    # Adds nothing.
    # Adds nothing.
    # Adds nothing.
    # Adds nothing.
    # Adds nothing.
    # Adds nothing.
    # Adds nothing.
    # Adds nothing.
    # Adds nothing.
    # Adds nothing.
    # Adds nothing.
    # Adds nothing.
    # Adds nothing.
    # Adds nothing.
    # Adds nothing.
    # Adds nothing.
    # Adds nothing.
    # Adds nothing.
    # Adds nothing.
    # Adds nothing.
    # Adds nothing.
    # Adds nothing.
    # Adds nothing.
    # Adds nothing.
    # Adds nothing.
    # Adds nothing.
    # Adds nothing.
    # Adds nothing.
    # Adds nothing.
    # Adds nothing.
    # Adds nothing.
    # Adds nothing.
    # Adds nothing.
    # Adds nothing.
    # Adds nothing.
    # Adds nothing.
    # Adds nothing.
    # Adds nothing.
    # Adds nothing.
    # Adds nothing.
    # Adds nothing.
    # Adds nothing.
    # Adds nothing.
    # Adds nothing.
    # Adds nothing.
    # Adds nothing.
    # Adds nothing.
    # Adds nothing.
    # Adds nothing.
    # Adds nothing.
    # Adds nothing.
    # Adds nothing.
    # Adds nothing.
    # Adds nothing.
    return total


def stringy():  # case: P10-R4 violation -- a string that is no docstring
    total = 0
    total += len("""
    text
    text
    text
    text
    text
    text
    text
    text
    text
    text
    text
    text
    text
    text
    text
    text
    text
    text
    text
    text
    text
    text
    text
    text
    text
    text
    text
    text
    text
    text
    text
    text
    text
    text
    text
    text
    text
    text
    text
    text
    text
    text
    text
    text
    text
    text
    text
    text
    text
    text
    text
    text
    text
    text
    text
    text
    text
    text
    text
    text
    text
    text
    text
    text
    text
    """)
    return total


async def awaiting():  # case: P10-R4 violation
    total = 0
    total += 0
    total += 1
    total += 2
    total += 3
    total += 4
    total += 5
    total += 6
    total += 7
    total += 8
    total += 9
    total += 10
    total += 11
    total += 12
    total += 13
    total += 14
    total += 15
    total += 16
    total += 17
    total += 18
    total += 19
    total += 20
    total += 21
    total += 22
    total += 23
    total += 24
    total += 25
    total += 26
    total += 27
    total += 28
    total += 29
    total += 30
    total += 31
    total += 32
    total += 33
    total += 34
    total += 35
    total += 36
    total += 37
    total += 38
    total += 39
    total += 40
    total += 41
    total += 42
    total += 43
    total += 44
    total += 45
    total += 46
    total += 47
    total += 48
    total += 49
    total += 50
    total += 51
    total += 52
    total += 53
    total += 54
    total += 55
    total += 56
    total += 57
    return total


@functools.cache
def decorated():  # case: P10-R4 clean
    total = 0
    total += 0
    total += 1
    total += 2
    total += 3
    total += 4
    total += 5
    total += 6
    total += 7
    total += 8
    total += 9
    total += 10
    total += 11
    total += 12
    total += 13
    total += 14
    total += 15
    total += 16
    total += 17
    total += 18
    total += 19
    total += 20
    total += 21
    total += 22
    total += 23
    total += 24
    total += 25
    total += 26
    total += 27
    total += 28
    total += 29
    total += 30
    total += 31
    total += 32
    total += 33
    total += 34
    total += 35
    total += 36
    total += 37
    total += 38
    total += 39
    total += 40
    total += 41
    total += 42
    total += 43
    total += 44
    total += 45
    total += 46
    total += 47
    total += 48
    total += 49
    total += 50
    total += 51
    total += 52
    total += 53
    total += 54
    total += 55
    return total


def outer():  # case: P10-R4 violation -- with the function inside it
    def inner():  # case: P10-R4 clean
        total = 0
        total += 0
        total += 1
        total += 2
        total += 3
        total += 4
        total += 5
        total += 6
        total += 7
        total += 8
        total += 9
        total += 10
        total += 11
        total += 12
        total += 13
        total += 14
        total += 15
        total += 16
        total += 17
        total += 18
        total += 19
        total += 20
        total += 21
        total += 22
        total += 23
        total += 24
        total += 25
        total += 26
        total += 27
        total += 28
        total += 29
        total += 30
        total += 31
        total += 32
        total += 33
        total += 34
        total += 35
        total += 36
        total += 37
        total += 38
        total += 39
        total += 40
        total += 41
        total += 42
        total += 43
        total += 44
        total += 45
        total += 46
        total += 47
        total += 48
        total += 49
        total += 50
        total += 51
        return total

    first = inner()
    second = inner()
    third = inner()
    return first + second + third


def long_head(  # case: P10-R4 violation -- the head has 41 lines of its own
    argument_0,
    argument_1,
    argument_2,
    argument_3,
    argument_4,
    argument_5,
    argument_6,
    argument_7,
    argument_8,
    argument_9,
    argument_10,
    argument_11,
    argument_12,
    argument_13,
    argument_14,
    argument_15,
    argument_16,
    argument_17,
    argument_18,
    argument_19,
    argument_20,
    argument_21,
    argument_22,
    argument_23,
    argument_24,
    argument_25,
    argument_26,
    argument_27,
    argument_28,
    argument_29,
    argument_30,
    argument_31,
    argument_32,
    argument_33,
    argument_34,
    argument_35,
    argument_36,
    argument_37,
    argument_38,
):
    total = 0
    total += 0
    total += 1
    total += 2
    total += 3
    total += 4
    total += 5
    total += 6
    total += 7
    total += 8
    total += 9
    total += 10
    total += 11
    total += 12
    total += 13
    total += 14
    total += 15
    total += 16
    total += 17
    total += 18
    total += 19
    return total


class Long:  # case: P10-R4 clean -- a class is no function
    def method_0(self):  # case: P10-R4 clean
        total = 0
        total += 0
        total += 1
        total += 2
        total += 3
        total += 4
        total += 5
        total += 6
        total += 7
        total += 8
        total += 9
        total += 10
        total += 11
        total += 12
        total += 13
        total += 14
        return total

    def method_1(self):  # case: P10-R4 clean
        total = 0
        total += 0
        total += 1
        total += 2
        total += 3
        total += 4
        total += 5
        total += 6
        total += 7
        total += 8
        total += 9
        total += 10
        total += 11
        total += 12
        total += 13
        total += 14
        return total

    def method_2(self):  # case: P10-R4 clean
        total = 0
        total += 0
        total += 1
        total += 2
        total += 3
        total += 4
        total += 5
        total += 6
        total += 7
        total += 8
        total += 9
        total += 10
        total += 11
        total += 12
        total += 13
        total += 14
        return total

    def method_3(self):  # case: P10-R4 clean
        total = 0
        total += 0
        total += 1
        total += 2
        total += 3
        total += 4
        total += 5
        total += 6
        total += 7
        total += 8
        total += 9
        total += 10
        total += 11
        total += 12
        total += 13
        total += 14
        return total

    def method_long(self):  # case: P10-R4 violation
        total = 0
        total += 0
        total += 1
        total += 2
        total += 3
        total += 4
        total += 5
        total += 6
        total += 7
        total += 8
        total += 9
        total += 10
        total += 11
        total += 12
        total += 13
        total += 14
        total += 15
        total += 16
        total += 17
        total += 18
        total += 19
        total += 20
        total += 21
        total += 22
        total += 23
        total += 24
        total += 25
        total += 26
        total += 27
        total += 28
        total += 29
        total += 30
        total += 31
        total += 32
        total += 33
        total += 34
        total += 35
        total += 36
        total += 37
        total += 38
        total += 39
        total += 40
        total += 41
        total += 42
        total += 43
        total += 44
        total += 45
        total += 46
        total += 47
        total += 48
        total += 49
        total += 50
        total += 51
        total += 52
        total += 53
        total += 54
        total += 55
        total += 56
        total += 57
        return total


def trailing():  # case: P10-R4 clean -- what follows is not its own
    total = 0
    total += 0
    total += 1
    total += 2
    total += 3
    total += 4
    total += 5
    total += 6
    total += 7
    total += 8
    total += 9
    total += 10
    total += 11
    total += 12
    total += 13
    total += 14
    total += 15
    total += 16
    total += 17
    total += 18
    total += 19
    total += 20
    total += 21
    total += 22
    total += 23
    total += 24
    total += 25
    total += 26
    total += 27
    total += 28
    total += 29
    total += 30
    total += 31
    total += 32
    total += 33
    total += 34
    total += 35
    total += 36
    total += 37
    total += 38
    total += 39
    total += 40
    total += 41
    total += 42
    total += 43
    total += 44
    total += 45
    total += 46
    total += 47
    total += 48
    total += 49
    total += 50
    total += 51
    total += 52
    total += 53
    total += 54
    total += 55
    total += 56
    return total


# Behind it.
# Behind it.
# Behind it.
# Behind it.
# Behind it.
# Behind it.
# Behind it.
# Behind it.
# Behind it.
# Behind it.

late = lambda: sum([
    0,
    1,
    2,
    3,
    4,
    5,
    6,
    7,
    8,
    9,
    10,
    11,
    12,
    13,
    14,
    15,
    16,
    17,
    18,
    19,
    20,
    21,
    22,
    23,
    24,
    25,
    26,
    27,
    28,
    29,
    30,
    31,
    32,
    33,
    34,
    35,
    36,
    37,
    38,
    39,
    40,
    41,
    42,
    43,
    44,
    45,
    46,
    47,
    48,
    49,
    50,
    51,
    52,
    53,
    54,
    55,
    56,
    57,
    58,
    59,
    60,
    61,
    62,
    63,
    64,
])
