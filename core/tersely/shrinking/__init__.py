"""Exact physical shrinking: removes everything from the model that masks leave without effect.

Private: import public names from `tersely`.
"""
