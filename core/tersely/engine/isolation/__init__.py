"""Code of plugins, called so that its errors and side effects stay with it.

Private: import public names from `tersely`.
"""
