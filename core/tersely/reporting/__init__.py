"""What a session did, as data, tables, pages and pictures.

Private: import public names from `tersely`.
"""
