"""The contract of pruners: scores, budgets, abilities and sessions.

Private: import public names from `tersely`.
"""
