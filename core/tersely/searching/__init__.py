"""Which layers hurt, and which config is the cheapest that is good enough.

Private: import public names from `tersely`.
"""
