"""The predicted program of the small model, and the proof that it is right.

Private: import public names from `tersely`.
"""
