"""Problems in words: what was found, what was expected, what to write instead.

Private: import public names from `tersely`.
"""
