"""Pure functions of tensors and the values they share; imports nothing of tersely above it.

Private: import public names from `tersely`.
"""
