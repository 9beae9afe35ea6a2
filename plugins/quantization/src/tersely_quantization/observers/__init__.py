"""Observers that quantizers offer by name, and how they choose the range to quantize.

Private: algorithms name an observer in `config`.
"""
