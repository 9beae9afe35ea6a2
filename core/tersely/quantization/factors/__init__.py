"""Factors of input channels, and what makes these inputs and may take them.

Private: import public names from `tersely`.
"""
