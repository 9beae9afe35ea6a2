"""A schedule for masks that change while their sparsity does not."""


def constant(progress: float) -> float:
    """Return the share of the sparsity that is due: all of it."""
    return 1.0
