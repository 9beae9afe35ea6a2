"""Measurements of models: time, memory, and the error of each layer.

Private: import public names from `tersely`.
"""
