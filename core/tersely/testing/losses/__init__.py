"""The contract of distillation losses.

Private: import public names from `tersely`.
"""
