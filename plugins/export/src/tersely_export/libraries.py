"""The libraries that a format needs, looked for before anything is computed."""

from __future__ import annotations

import importlib.util

import tersely


def need_libraries(format: str, *names: str) -> None:
    """Refuse to go on where a library of a format is missing.

    Args:
        format: the format, which is the name of its extra too.
        names: the libraries as they are imported.

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
