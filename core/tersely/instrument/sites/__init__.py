"""Inputs and outputs of modules: where a target is in a call, and what its transforms make of it.

Private: import public names from `tersely`.
"""
