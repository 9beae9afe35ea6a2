"""From a path, text or object to data with places: YAML, JSON and Python, and what they refuse.

Private: import public names from `tersely`.
"""
