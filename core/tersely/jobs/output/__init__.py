"""The output folder of a run: its owner, its record and its checkpoints.

Private: import public names from `tersely`.
"""
