"""Checks that code leaves models, process-wide settings and random state unchanged.

Private: import public names from `tersely`.
"""
