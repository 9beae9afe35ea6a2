"""How a run reports its progress: bars, lines and observers.

Private: import public names from `tersely`.
"""
