"""Classes that are written down, and classes that are made at run time."""

import abc
import enum
import types
from abc import ABC, ABCMeta
from dataclasses import dataclass, make_dataclass


class Registry(type):  # case: P10-R8 violation -- a metaclass
    def __new__(mcs, name, bases, names):
        return super().__new__(mcs, name, bases, names)


class Plugin(metaclass=Registry):  # case: P10-R8 violation
    pass


class Shape(ABC):  # case: P10-R8 clean -- a base class
    @abc.abstractmethod
    def area(self):
        raise NotImplementedError


class Solid(metaclass=ABCMeta):  # case: P10-R8 violation -- the page names metaclasses and makes no exception
    pass


class Colour(enum.Enum):  # case: P10-R8 clean -- written down, though its base has a metaclass
    RED = 1


@dataclass(frozen=True)
class Point:  # case: P10-R8 clean
    x: int


def make(name, names):
    made = type(name, (), names)  # case: P10-R8 violation
    print(type(made))  # case: P10-R8 clean -- asks
    new = types.new_class(name)  # case: P10-R8 violation
    module = types.ModuleType(name)  # case: P10-R8 violation -- a module
    data = make_dataclass(name, ["x"])  # case: P10-R8 violation
    return made, new, module, data


class Kind:
    def type(self, a, b, c):
        return a, b, c


print(Kind().type(1, 2, 3))  # case: P10-R8 clean -- a method of that name
