"""Which blocks are masked: budgets, selection, groups and alignment.

Private: import public names from `tersely`.
"""
