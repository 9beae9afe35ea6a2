"""Counting calls, which no other work on the machine changes."""

import sys


def calls_of(function):
    """Count the calls of Python's and of C's functions that a function makes."""
    count = 0

    def trace(frame, event, argument):
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(trace)
    try:
        function()
    finally:
        sys.setprofile(before)
    return count
