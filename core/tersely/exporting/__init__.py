"""From a session to one exported program with real integers, and on to files.

Private: import public names from `tersely`.
"""
