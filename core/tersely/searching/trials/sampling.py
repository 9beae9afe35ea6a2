"""Settings from Optuna's sampler, as a function of the seed and the finished trials."""

from __future__ import annotations

import contextlib
import random
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from tersely.extras import extra

with extra("search", purpose="a search"):
    import optuna

Setting = tuple[int, ...]
"""For each unit, the index of its level; 0 for dense."""

_ATTEMPTS = 20


def draw(
    finished: Sequence[Any],
    ranges: Mapping[str, Any],
    *,
    seed: int,
    taken: Collection[Setting],
) -> Setting | None:
    """Draw a promising setting that is not taken, or None if there is none.

    Args:
        finished: Optuna's finished trials.
        ranges: for each unit, the distribution of the indices of its levels.
        seed: the seed of the search.
        taken: settings that must not be drawn.
    """
    for attempt in range(_ATTEMPTS):
        sampler = _sampler(_hash_of(seed, len(finished), attempt))
        with silent():
            study = optuna.create_study(sampler=sampler, direction="minimize")
            study.add_trials(finished)
            drawn = study.ask(dict(ranges)).params
        setting = tuple(drawn[name] for name in ranges)
        if setting not in taken and any(setting):
            return setting
    chance = random.Random(_hash_of(seed, len(finished), _ATTEMPTS))
    for _ in range(_ATTEMPTS * len(ranges)):
        setting = tuple(chance.randint(0, one.high) for one in ranges.values())
        if setting not in taken and any(setting):
            return setting
    return None


def _hash_of(*parts: int) -> int:
    """Return a seed computed from numbers, the same in every process.

    Args:
        parts: non-negative numbers.
    """
    found = 0
    for part in parts:
        found = (found * 1_000_003 + part + 12_345) % 2**32
    return found


def _sampler(seed: int) -> Any:
    return optuna.samplers.TPESampler(seed=seed, multivariate=True, n_startup_trials=1)


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """Silence Optuna's log and warnings."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        optuna.logging.set_verbosity(before)
