"""The end of a session: what stays in the finished model, and what its config says of it.

Private: import public names from `tersely`.
"""
