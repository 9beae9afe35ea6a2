"""The command line: one module a command.

Private: import public names from `tersely`.
"""
