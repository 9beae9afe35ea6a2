"""What a job measures at its end: times, bytes and the error of each layer.

Private: import public names from `tersely`.
"""
