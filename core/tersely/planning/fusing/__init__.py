"""Modules that fold into the one before them.

Private: import public names from `tersely`.
"""
