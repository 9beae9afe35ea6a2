"""A model as a graph of ``torch.export``, and the labels of elements that are removed together.

Private: import public names from `tersely`.
"""
