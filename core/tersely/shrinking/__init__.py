"""Exact physical shrinking: channels that are masked whole are removed from the model."""
