"""What the small program has to be, and the proof that it is.

Private: import public names from `tersely`.
"""
