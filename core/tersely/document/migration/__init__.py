"""Config lists of NNI 1.x and 2.x, rewritten.

Private: import public names from `tersely`.
"""
