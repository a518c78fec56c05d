"""A module whose names others set would be state; this one sets another's."""

import logging

import state


def configure(value):
    state.total = value  # case: P10-R6 violation -- state of another module


def quiet():
    logger = logging.getLogger(__name__)
    logger.disabled = True  # case: P10-R6 clean -- an object that a call gave
