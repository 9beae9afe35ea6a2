"""Exact physical shrinking: what masks leave without effect is removed from the model.

Private: import public names from `tersely`.
"""
