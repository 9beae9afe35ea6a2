"""Options that several commands share.

Private: import public names from `tersely`.
"""
