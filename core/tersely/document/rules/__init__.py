"""Rules of documents that a JSON Schema cannot say.

Private: import public names from `tersely`.
"""
