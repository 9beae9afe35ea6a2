"""Reports and plans as plain text and tables.

Private: import public names from `tersely`.
"""
