"""Checking that the libraries of a format are installed before anything is computed."""

from __future__ import annotations

import importlib.util

import tersely


def need_libraries(format: str, *names: str) -> None:
    """Raise an error if a library of a format is missing.

    Args:
        format: the format, which is also the name of its extra.
        names: the import names of the libraries.

    Raises:
        MissingExtraError: one is not installed.
    """
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise tersely.MissingExtraError(
                f"an export to {format} needs {name}, which is not installed; install it with: "
                f'pip install "tersely-export[{format}]"',
                package=name,
                extra=format,
            )
