"""Jobs: one file that names a model, its data and a recipe, run from start to report.

Private: import public names from `tersely`.
"""
