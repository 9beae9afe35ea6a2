"""The built-in training loop.

Private: import public names from `tersely`.
"""
