"""Scales and zero points on parameters, inputs and outputs.

Private: import public names from `tersely`.
"""
