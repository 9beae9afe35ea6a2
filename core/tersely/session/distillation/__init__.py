"""The distillation of a session: pairs of taps, losses between them, projections, the cache."""
