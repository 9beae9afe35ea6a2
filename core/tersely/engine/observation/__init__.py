"""What engines observe while batches run: calls, padding and sums.

Private: import public names from `tersely`.
"""
