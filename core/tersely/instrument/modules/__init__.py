"""Modules that get another class in place, and get their own back.

Private: import public names from `tersely`.
"""
