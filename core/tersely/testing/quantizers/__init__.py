"""The contract of quantizers, and what it asks of abilities and sessions.

Private: import public names from `tersely`.
"""
