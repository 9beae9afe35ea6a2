"""What each operator does to labels, and the walk over a program that asks for it.

Private: import public names from `tersely`.
"""
