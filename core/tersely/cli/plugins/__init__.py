"""The group ``tersely plugins``, a module a command.

Private: import public names from `tersely`.
"""
