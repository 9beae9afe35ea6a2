"""Parameters, operations and bytes of a model, before and after a cut.

Private: import public names from `tersely`.
"""
