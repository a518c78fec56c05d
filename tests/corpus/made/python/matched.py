"""The match statement."""


def walk(node):  # case: P10-R1 violation -- within a case
    match node:
        case {"left": left, "right": right}:
            return walk(left) + walk(right)
        case [first, *rest] if rest:
            return [first, *rest]
        case eval:
            return eval  # case: P10-R8 clean -- a name bound by the case


def read(source):
    try:
        match source.kind:
            case "a":
                exec(source.text)  # case: P10-R8 violation
            case _:
                source.text.strip()  # case: P10-R7 violation
    except KeyError:  # case: P10-R7 violation
        pass
