"""Setting attributes of others, and of one's own."""

import json
import os
import socket as net
from datetime import datetime
from unittest import mock

json.dumps = str  # case: P10-R8 violation
net.socket.close = print  # case: P10-R8 violation -- a class of another module
setattr(os, "getcwd", lambda: "/")  # case: P10-R8 violation
os.environ["LANG"] = "C"  # case: P10-R8 clean -- data that is made to be set


class Mine:
    limit = 1


Mine.limit = 2  # case: P10-R8 clean -- its own class


def later(thing, name):
    thing.name = name  # case: P10-R8 clean -- an object
    os.sep = "/"  # case: P10-R8 violation -- a module's name, from a function
    setattr(thing, name, 1)  # case: P10-R8 clean -- an object, as far as can be seen
    now = datetime.now()
    return now


def described():
    return None


described.note = "its own function"  # case: P10-R8 clean
json.decoder.JSONDecoder.decode = mock.Mock()  # case: P10-R8 violation
del json.loads  # case: P10-R8 violation -- takes away what others call
