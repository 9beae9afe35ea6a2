"""Checks that code prints nothing and does not change process-wide settings."""

from __future__ import annotations

import io
import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout

import torch

_ENVIRONMENT = "os.environ"
CHANGED_ENVIRONMENT = f"it changed {_ENVIRONMENT}"


@contextmanager
def watched_process() -> Iterator[list[str]]:
    """Record what the block prints, warns about and changes process-wide, and restore it.

    Yields:
        Messages about what was found; empty until the block ends.
    """
    found: list[str] = []
    before, dtype, threads = _settings(), torch.get_default_dtype(), torch.get_num_threads()
    deterministic = torch.are_deterministic_algorithms_enabled()
    environment = dict(os.environ)
    printed, last_resort = io.StringIO(), logging.lastResort
    # Unconfigured logging prints warnings to stderr; those do not count as printing.
    logging.lastResort = logging.NullHandler()
    try:
        with (
            redirect_stdout(printed),
            redirect_stderr(printed),
            warnings.catch_warnings(record=True) as warned,
        ):
            warnings.simplefilter("always")
            yield found
        after = _settings()
    finally:
        logging.lastResort = last_resort
        torch.set_default_dtype(dtype)
        torch.set_num_threads(threads)
        torch.use_deterministic_algorithms(deterministic)
        if os.environ != environment:
            os.environ.clear()
            os.environ.update(environment)
    if printed.getvalue():
        found.append(f"it printed {printed.getvalue()[:80]!r}; use logging instead")
    found += [f"it warns: {one.message}" for one in warned if issubclass(one.category, _OUTDATED)]
    found += [f"it changed {name}" for name, value in before.items() if after[name] != value]


_OUTDATED = (DeprecationWarning, PendingDeprecationWarning, FutureWarning, RuntimeWarning)


def _settings() -> dict[str, object]:
    return {
        "the default dtype of torch": torch.get_default_dtype(),
        "the number of threads of torch": torch.get_num_threads(),
        "use_deterministic_algorithms": torch.are_deterministic_algorithms_enabled(),
        "anomaly detection": torch.is_anomaly_enabled(),
        _ENVIRONMENT: dict(os.environ),
        "the working directory": os.getcwd(),  # noqa: PTH109 - compared as it is
        "handlers or level of the root logger": (list(logging.root.handlers), logging.root.level),
    }
