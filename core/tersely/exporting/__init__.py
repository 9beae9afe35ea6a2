"""From a session to one exported program with real integers, and on to files.

Private: not part of the public API.
"""
