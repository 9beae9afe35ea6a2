"""The targets of a selected module: their names, owners, settings and blocks.

Private: import public names from `tersely`.
"""
