"""The trials of a search in Optuna's storage, shared by several processes.

Private: import public names from `tersely`.
"""
