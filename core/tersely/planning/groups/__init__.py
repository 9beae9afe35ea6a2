"""Targets that are decided together: groups, and what follows another target.

Private: import public names from `tersely`.
"""
