"""The rules by which operators pass labels, and the walk over a program that applies them.

Private: import public names from `tersely`.
"""
