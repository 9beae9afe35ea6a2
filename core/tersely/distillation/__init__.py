"""Distillation in a session: taps, pairs, projections and losses.

Private: import public names from `tersely`.
"""
