"""Which layers lose most when they are compressed, and the cheapest config that is good enough.

Private: import public names from `tersely`.
"""
