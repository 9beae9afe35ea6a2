"""A model as the graph of ``torch.export``, and the labels of what goes together in it.

Private: import public names from `tersely`.
"""
