"""What a session did, read from it and its plan into the rows and remarks of a report.

Private: import public names from `tersely`.
"""
