"""Tells whether code leaves the random numbers of the whole process alone."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy
import torch

from tersely.testing.contract import expect


@contextmanager
def untouched_random_state() -> Iterator[None]:
    """Fail when the block draws from, or seeds, a generator that everything else draws from.

    Raises:
        ContractError: the state of torch, Python or NumPy is another one afterwards.
    """
    before = torch.get_rng_state(), random.getstate(), repr(numpy.random.get_state())
    yield
    after = torch.get_rng_state(), random.getstate(), repr(numpy.random.get_state())
    names = ("torch", "random", "numpy.random")
    same = (torch.equal(before[0], after[0]), before[1] == after[1], before[2] == after[2])
    changed = [name for name, is_same in zip(names, same, strict=True) if not is_same]
    expect(
        not changed,
        f"the global random state of {', '.join(changed)} was changed; draw from a generator of "
        f"your own",
    )
