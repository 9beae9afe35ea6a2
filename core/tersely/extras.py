"""The libraries that only some installations have, and the error that says how to get them."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Iterator, Mapping

from tersely.errors import MissingExtraError

EXTRAS: Mapping[str, tuple[str, ...]] = {
    "cli": ("click", "rich"),
    "report": ("jinja2", "markupsafe", "matplotlib"),
    "search": ("optuna",),
}
"""Extra of the core -> the packages that are imported from what it installs."""


@contextlib.contextmanager
def extra(name: str, *, purpose: str) -> Iterator[None]:
    """Import libraries of an extra inside this context, so that a missing one is explained.

    Args:
        name: the extra, a key of ``EXTRAS``.
        purpose: what needs it, as the subject of a sentence.

    Raises:
        MissingExtraError: a package of the extra is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in EXTRAS[name]:
            raise
        raise MissingExtraError(
            f"{purpose} needs {package}, which is not installed; install it with: "
            f'pip install "tersely[{name}]"',
            package=package,
            extra=name,
        ) from error


def need_extra(name: str, *, purpose: str) -> None:
    """Look for the libraries of an extra without importing them.

    Args:
        name: the extra, a key of ``EXTRAS``.
        purpose: what will need it, as the subject of a sentence.

    Raises:
        MissingExtraError: a package of the extra is not installed.
    """
    with extra(name, purpose=purpose):
        for package in EXTRAS[name]:
            if importlib.util.find_spec(package) is None:
                raise ModuleNotFoundError(f"No module named {package!r}", name=package)
