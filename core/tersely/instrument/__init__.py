"""Instrumentation: the user's own modules, processed in place and given back unharmed.

Private: import public names from `tersely`.
"""
