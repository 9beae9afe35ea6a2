"""Every error tersely raises: one tree, each class also the builtin a caller would expect."""

from __future__ import annotations

from collections.abc import Sequence

import attrs

_SHOWN = 50  # a large model can have one problem in each of its thousands of modules


@attrs.frozen
class Problem:
    """One mistake in a document.

    Attributes:
        path: where it is in the data, as in ``pruning.config_list[0].sparse_ratio``; empty for
            the root.
        message: what was found and what was expected.
        hint: what to write instead, or None.
        line: 1-based line of the key or value in the file, or None for Python data.
        column: 1-based column of the key or value in the file, or None for Python data.
    """

    path: str
    message: str
    hint: str | None = None
    line: int | None = None
    column: int | None = None

    def __str__(self) -> str:
        place = f"{self.line}:{self.column}: " if self.line is not None else ""
        path = f"{self.path}: " if self.path else ""
        hint = f" ({self.hint})" if self.hint else ""
        return f"{place}{path}{self.message}{hint}"


class TerselyError(Exception):
    """The root of all errors that tersely raises on purpose."""


class ConfigError(TerselyError, ValueError):
    """A document (recipe, config list or job) is wrong; ``problems`` holds every mistake at once.

    Args:
        problems: every mistake that was found, in document order.
        source: the file the document came from, or None for Python data.
    """

    def __init__(self, problems: Sequence[Problem], *, source: str | None = None) -> None:
        self.problems = tuple(problems)
        self.source = source
        super().__init__(self._text())

    def _text(self) -> str:
        count = len(self.problems)
        where = self.source or "the document"
        head = f"{where} has {count} problem{'' if count == 1 else 's'}:"
        return "\n".join([head, *(f"  {problem}" for problem in self.problems)])

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild_config_error, (self.problems, self.source)


def _rebuild_config_error(problems: tuple[Problem, ...], source: str | None) -> ConfigError:
    return ConfigError(problems, source=source)


class PlanError(TerselyError, ValueError):
    """A valid document does not fit the model; ``problems`` holds one sentence for each misfit."""

    def __init__(self, problems: str | Sequence[str]) -> None:
        self.problems = (problems,) if isinstance(problems, str) else tuple(problems)
        if len(self.problems) == 1:
            text = self.problems[0]
        else:
            lines = [f"the plan has {len(self.problems)} problems:"]
            lines += [f"  {problem}" for problem in self.problems[:_SHOWN]]
            if len(self.problems) > _SHOWN:
                lines.append(f"  ... and {len(self.problems) - _SHOWN} more, listed in problems")
            text = "\n".join(lines)
        super().__init__(text)

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.problems,)


class PluginError(TerselyError, RuntimeError):
    """A plugin is missing, broken, ambiguous or written for another API."""


class UnknownPluginError(PluginError, LookupError):
    """No installed distribution provides the name that was asked for."""


class BrokenPluginError(PluginError):
    """The plugin that provides the name failed to import or to describe itself."""


class PluginConflictError(PluginError, LookupError):
    """Several distributions provide the short name; only the qualified spelling is clear."""


class PluginApiError(PluginError):
    """A plugin was written for another version of the plugin API."""


class AttachError(TerselyError, RuntimeError):
    """A plan cannot be attached to this model; the model is as it was before."""


class CalibrationError(TerselyError, RuntimeError):
    """Calibration saw nothing, or nothing usable, for a target that needs it."""


class SessionError(TerselyError, RuntimeError):
    """Session methods were called in an order that cannot work; the text names the missing call."""


class TrainingError(TerselyError, RuntimeError):
    """The built-in training loop of a job cannot go on, because its loss is not finite."""


class CompressionWarning(UserWarning):
    """Compressing had to do otherwise than it was asked to; names the targets."""


class SessionFileError(TerselyError, OSError):
    """A saved session is damaged, incomplete or belongs to another model."""
