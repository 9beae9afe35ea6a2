"""Documents: reading, checking and building recipes, jobs and config lists; needs no torch.

Private: import public names from `tersely`.
"""
