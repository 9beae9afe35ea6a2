"""The quantization of a session: stages, ranges, scales, integers."""
