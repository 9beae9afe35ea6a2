"""The contract of exporters, and the sessions that it has them write.

Private: import public names from `tersely`.
"""
