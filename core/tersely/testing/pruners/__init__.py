"""The contract of pruners, and what it asks of budgets, abilities and sessions.

Private: import public names from `tersely`.
"""
