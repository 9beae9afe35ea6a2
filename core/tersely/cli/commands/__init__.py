"""The commands of ``tersely``, a module each; those about plugins have a folder of their own.

Private: import public names from `tersely`.
"""
