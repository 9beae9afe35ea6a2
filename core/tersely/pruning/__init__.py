"""Pruning in a session: from importances to masks in force.

Private: import public names from `tersely`.
"""
