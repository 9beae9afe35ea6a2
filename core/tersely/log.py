"""Structured logging that stays silent below WARNING until the application configures it."""

from __future__ import annotations

import logging
from typing import TextIO

import structlog

# An unconfigured structlog prints DEBUG to stdout, which a library must not do to its host.
_SILENT = structlog.make_filtering_bound_logger(logging.WARNING)


def logger(name: str) -> structlog.typing.FilteringBoundLogger:
    """Return the logger of one tersely module.

    Args:
        name: the module's dotted name, bound to every event as ``logger``.

    Returns:
        The application's structlog logger when it configured structlog, otherwise one that
        only lets warnings and errors through, to standard error.
    """
    if structlog.is_configured():
        # Not get_logger(logger=name): wrap_logger has an argument of that name itself.
        configured: structlog.typing.FilteringBoundLogger = structlog.get_logger().bind(logger=name)
        return configured
    quiet: structlog.typing.FilteringBoundLogger = structlog.wrap_logger(
        structlog.PrintLogger(_stderr()),
        wrapper_class=_SILENT,
        processors=[
            structlog.processors.add_log_level,
            structlog.dev.ConsoleRenderer(colors=False),
        ],
    ).bind(logger=name)
    return quiet


def _stderr() -> TextIO:
    import sys  # looked up at call time: test runners and notebooks replace the stream

    return sys.stderr
