"""The search itself: what is proposed, tried and found.

Private: import public names from `tersely`.
"""
