"""Automated gradual pruning.

Zhu and Gupta, To Prune, or Not to Prune: Exploring the Efficacy of Pruning for Model Compression,
ICLR 2018 workshop track, equation 1 with initial sparsity 0.
"""

from __future__ import annotations

from fractions import Fraction
from typing import TypeVar

Progress = TypeVar("Progress", float, Fraction)


def agp(progress: Progress) -> Progress:
    """Return the share of the final sparsity: r_t / r = 1 - (1 - t / T)^3.

    Args:
        progress: updates done over all updates, in [0, 1]; a Fraction stays exact.
    """
    rest = 1 - progress
    return 1 - rest * rest * rest
