"""A plan in the making: each stage's entries and algorithm, and what they contradict.

Private: import public names from `tersely`.
"""
