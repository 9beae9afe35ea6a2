"""Checks that code leaves models, settings of the process and random numbers as they were.

Private: import public names from `tersely`.
"""
