"""Which modules an entry means, and what to say of those it misses.

Private: import public names from `tersely`.
"""
