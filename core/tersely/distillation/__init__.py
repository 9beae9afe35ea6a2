"""Distillation in a session: taps, pairs, projections and losses."""
