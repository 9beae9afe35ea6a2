"""Planning: a recipe and a model make a Plan; the model is not touched.

Private: import public names from `tersely`.
"""
