"""Finished runs side by side.

Private: import public names from `tersely`.
"""
