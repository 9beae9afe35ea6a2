"""Quantization in a session: from observed ranges to scales in force.

Private: import public names from `tersely`.
"""
