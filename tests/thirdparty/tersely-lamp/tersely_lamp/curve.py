"""A schedule whose sparsity grows slowly at both ends."""

import math


def cosine(progress: float) -> float:
    """Return the share of the sparsity that is due."""
    return (1 - math.cos(math.pi * progress)) / 2
