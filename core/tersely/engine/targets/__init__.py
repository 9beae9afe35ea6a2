"""Planned targets bound to the tensors of a model, and what they put into it.

Private: import public names from `tersely`.
"""
