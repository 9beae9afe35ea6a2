"""Sparsity that grows by the same amount at every update."""

from __future__ import annotations

from fractions import Fraction
from typing import TypeVar

Progress = TypeVar("Progress", float, Fraction)


def linear(progress: Progress) -> Progress:
    """Return the share of the final sparsity: r_t / r = t / T.

    Args:
        progress: updates done over all updates, in [0, 1]; a Fraction stays exact.
    """
    return progress
