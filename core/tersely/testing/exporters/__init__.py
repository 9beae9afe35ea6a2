"""The contract of exporters and the sessions that they export.

Private: import public names from `tersely`.
"""
