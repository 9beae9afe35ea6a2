"""What a session did: the data of reports in this folder, what makes and shows them in others.

Private: import public names from `tersely`.
"""
