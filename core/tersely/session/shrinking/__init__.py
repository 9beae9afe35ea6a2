"""Shrinking in a session: the model is cut, and the plan installed on the small one.

Private: import public names from `tersely`.
"""
