"""The state of engines: undone after an error, saved, restored and cut.

Private: import public names from `tersely`.
"""
