"""What each layer loses when it alone is compressed.

Private: import public names from `tersely`.
"""
