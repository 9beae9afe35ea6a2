"""Sessions and tensors on disk, written whole or not at all.

Private: import public names from `tersely`.
"""
