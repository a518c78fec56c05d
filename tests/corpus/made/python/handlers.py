"""Exceptions: taken, passed on and lost."""

import contextlib
import logging
from contextlib import suppress

LOG = logging.getLogger(__name__)


def bare(step):
    try:
        step()
    except:  # case: P10-R7 violation
        LOG.exception("step")


def bare_reraised(step):
    try:
        step()
    except:  # case: P10-R7 violation -- bare, whatever it does
        raise


def swallowed(step):
    try:
        step()
    except ValueError:  # case: P10-R7 violation
        pass


def dotted(step):
    try:
        step()
    except Exception:  # case: P10-R7 violation
        ...


def continued(steps):
    for step in steps:
        try:
            step()
        except OSError:  # case: P10-R7 violation
            continue


def logged(step):
    try:
        step()
    except OSError:  # case: P10-R7 clean
        LOG.exception("step")


def logged_and_raised(step):
    try:
        step()
    except Exception:  # case: P10-R7 clean
        LOG.warning("step")
        raise


def translated(step):
    try:
        step()
    except KeyError as problem:  # case: P10-R7 clean
        raise ValueError("step") from problem


def kept(step, problems):
    try:
        step()
    except OSError as problem:  # case: P10-R7 clean -- kept for later
        problems.append(problem)


def commented(step):
    try:
        step()
    except OSError:  # case: P10-R7 violation -- a comment is no handling
        # It does not matter.
        pass


def worded(step):
    try:
        step()
    except OSError:  # case: P10-R7 violation -- a text does nothing
        "It does not matter."


def suppressed(step):
    with suppress(Exception):  # case: P10-R7 violation
        step()


def suppressed_all(step):
    with contextlib.suppress(BaseException):  # case: P10-R7 violation
        step()


def suppressed_narrow(path):
    with suppress(FileNotFoundError):  # case: P10-R7 clean -- one narrow class, named
        path.unlink()


def suppressed_mixed(step):
    with suppress(ValueError, Exception):  # case: P10-R7 violation -- broad with the second
        step()


def returned(step):
    try:
        return step()
    finally:
        return None  # case: P10-R7 violation -- what was raised is lost


def returned_nested(step):
    try:
        step()
    finally:
        def closing():
            return None  # case: P10-R7 clean -- leaves another function
        closing()


def broken(steps):
    for step in steps:
        try:
            step()
        finally:
            break  # case: P10-R7 violation -- loses it as a return does


def tidied(step):
    try:
        return step()
    finally:
        LOG.debug("done")  # case: P10-R7 clean


def grouped(step):
    try:
        step()
    except* OSError:  # case: P10-R7 violation -- of a group
        pass


def chosen(text):
    try:
        return int(text)
    except ValueError:  # case: P10-R7 clean -- a value stands for it
        return 0


def asked(step):
    try:
        step()
    except OSError as problem:  # case: P10-R7 clean -- raised under a condition
        if problem.errno != 2:
            raise
