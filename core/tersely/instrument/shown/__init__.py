"""What a targeted parameter shows, and what becomes of writes into it.

Private: import public names from `tersely`.
"""
