"""Cutting parameters, buffers and the state of optimizers, and what is refused before that.

Private: import public names from `tersely`.
"""
