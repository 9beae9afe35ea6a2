"""Quantization in a session: from observed ranges to scales in force."""
