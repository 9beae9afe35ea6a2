"""The random generators of a run: seeded where a phase begins, and kept where a loop is cut off."""

from __future__ import annotations

import random
import sys
from collections.abc import Mapping
from typing import Any

import torch


def seed_generators(seed: int | None) -> None:
    """Seed Python, torch and, where it is loaded, NumPy, so that a resumed phase repeats itself.

    Args:
        seed: the job's seed; None leaves every generator alone.
    """
    if seed is None:
        return
    random.seed(seed)
    torch.manual_seed(seed)
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        numpy.random.seed(seed % 2**32)


def generators_state() -> dict[str, Any]:
    """Return where the process-wide generators are, as tensors and plain values."""
    state: dict[str, Any] = {"python": random.getstate(), "torch": torch.get_rng_state()}
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]  # torch says no types
        state["cuda"] = torch.cuda.get_rng_state_all()
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        state["numpy"] = _plain(numpy.random.get_state(legacy=False))
    return state


def restore_generators(state: Mapping[str, Any]) -> None:
    """Put the process-wide generators where they were.

    Args:
        state: what `generators_state` returned.
    """
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
    torch.set_rng_state(state["torch"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"][: torch.cuda.device_count()])
    if "numpy" in state:
        # Late: a run that has not loaded NumPy does not need it.
        import numpy

        numpy.random.set_state(_arrays(state["numpy"]))


def _plain(value: Any) -> Any:
    """NumPy's arrays as lists; torch reads foreign types only where it trusts a file blindly."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return {"array": value.tolist(), "type": str(value.dtype)} if hasattr(value, "dtype") else value


def _arrays(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    if set(value) == {"array", "type"}:
        # Late, as above.
        import numpy

        return numpy.asarray(value["array"], dtype=value["type"])
    return {key: _arrays(item) for key, item in value.items()}
