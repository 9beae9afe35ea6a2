"""One pass over batches for everything that observes, whole or block by block.

Private: import public names from `tersely`.
"""
