"""The JSON Schema of documents, composed with those of plugins, and what it finds.

Private: import public names from `tersely`.
"""
