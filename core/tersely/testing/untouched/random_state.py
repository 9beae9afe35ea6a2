"""Checks that code leaves the global random state unchanged."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy
import torch

from tersely.testing.contract import expect

_SEED = 20240229  # used nowhere else, so that seeding is noticed as well as drawing


@contextmanager
def untouched_random_state() -> Iterator[None]:
    """Fail if the block draws from, or seeds, a global random generator.

    The previous state is restored afterwards.

    Raises:
        ContractError: the state of torch, Python or NumPy changed.
    """
    kept = torch.get_rng_state(), random.getstate(), numpy.random.get_state()
    torch.manual_seed(_SEED)
    random.seed(_SEED)
    numpy.random.seed(_SEED)
    try:
        before = _states()
        yield
        after = _states()
    finally:
        torch.set_rng_state(kept[0])
        random.setstate(kept[1])
        numpy.random.set_state(kept[2])
    changed = [name for name, state in before.items() if after[name] != state]
    expect(
        not changed,
        f"the global random state of {', '.join(changed)} was changed; use a generator of your own",
    )


def _states() -> dict[str, object]:
    return {
        "torch": torch.get_rng_state().tolist(),
        "random": random.getstate(),
        "numpy.random": repr(numpy.random.get_state()),
    }
