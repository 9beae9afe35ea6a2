"""Every error tersely raises: one tree, each class also the builtin a caller would expect."""

from __future__ import annotations

import os
from collections.abc import Sequence

import attrs

_LONGEST = 1000  # characters of a problem; what was written may be of any length
_SHOWN = 50  # a large model can have one problem in each of its thousands of modules


@attrs.frozen
class Fix:
    """The one right answer to a mistake: another key, another value, or another place.

    Attributes:
        path: keys and indices of what is wrong, from the root of the document.
        to: where it belongs; equal to ``path`` where only the value is wrong.
        value: what to write there, unless the value stays.
        keeps_value: whether the value stays as it is written.
    """

    path: tuple[str | int, ...]
    to: tuple[str | int, ...]
    value: object = None
    keeps_value: bool = False


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
        fix: the one right answer, which ``tersely validate --fix`` writes, or None where a person
            has to decide.
    """

    path: str
    message: str
    hint: str | None = None
    line: int | None = None
    column: int | None = None
    fix: Fix | None = attrs.field(default=None, eq=False)

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
        lines = [head, *(f"  {_cut(str(problem))}" for problem in self.problems[:_SHOWN])]
        if count > _SHOWN:
            lines.append(f"  ... and {count - _SHOWN} more, listed in problems")
        return "\n".join(lines)

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild_config_error, (self.problems, self.source), self.__dict__


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def _rebuild_config_error(problems: tuple[Problem, ...], source: str | None) -> ConfigError:
    return ConfigError(problems, source=source)


class PlacedError(TerselyError):
    """The parent of the errors that concern a target, to catch or to annotate any of them.

    Args:
        message: what was found, what was expected, and what to do.
        target: full name of the target or module, as in ``encoder.0.weight``, or None.
        path: where the document asks for it, as in ``pruning.config_list[0]``, or None.
        algorithm: the algorithm under way, as the document spells it, or None.
    """

    def __init__(
        self,
        message: str,
        *,
        target: str | None = None,
        path: str | None = None,
        algorithm: str | None = None,
    ) -> None:
        super().__init__(message)
        self.target = target
        self.path = path
        self.algorithm = algorithm


class PlanError(PlacedError, ValueError):
    """A valid document does not fit the model; ``problems`` holds one sentence for each misfit.

    Args:
        problems: one sentence, or several.
        target: full name of the only target that does not fit, or None.
        path: where the document asks for it, or None.
        algorithm: the algorithm of the only misfit, or None.
    """

    def __init__(
        self,
        problems: str | Sequence[str],
        *,
        target: str | None = None,
        path: str | None = None,
        algorithm: str | None = None,
    ) -> None:
        self.problems = (problems,) if isinstance(problems, str) else tuple(problems)
        if len(self.problems) == 1:
            text = self.problems[0]
        else:
            lines = [f"the plan has {len(self.problems)} problems:"]
            lines += [f"  {problem}" for problem in self.problems[:_SHOWN]]
            if len(self.problems) > _SHOWN:
                lines.append(f"  ... and {len(self.problems) - _SHOWN} more, listed in problems")
            text = "\n".join(lines)
        super().__init__(text, target=target, path=path, algorithm=algorithm)

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.problems,), self.__dict__


class PluginError(TerselyError, RuntimeError):
    """A plugin is missing, broken, ambiguous or written for another API.

    Args:
        message: what was found, what was expected, and what to do.
        plugin: the name that was asked for, or the plugin's own, or None.
        distribution: the distribution that provides it, or None.
        target: full name of the target that the plugin was working on, or None.
    """

    def __init__(
        self,
        message: str,
        *,
        plugin: str | None = None,
        distribution: str | None = None,
        target: str | None = None,
    ) -> None:
        super().__init__(message)
        self.plugin = plugin
        self.distribution = distribution
        self.target = target


class UnknownPluginError(PluginError, LookupError):
    """No installed distribution provides the name that was asked for."""


class BrokenPluginError(PluginError):
    """The plugin that provides the name failed to import or to describe itself."""


class PluginConflictError(PluginError, LookupError):
    """Several distributions provide the short name; only the qualified spelling is clear."""


class PluginApiError(PluginError):
    """A plugin was written for another version of the plugin API."""


class MissingExtraError(TerselyError, ImportError):
    """A library that comes with an extra of tersely is not installed; the text has the command.

    Args:
        message: what needs the library, and how to install it.
        package: the package that could not be imported, or None.
        extra: the extra that brings it, or None.
    """

    def __init__(
        self, message: str, *, package: str | None = None, extra: str | None = None
    ) -> None:
        super().__init__(message)
        self.name = package
        self.package = package
        self.extra = extra


class AttachError(PlacedError, RuntimeError):
    """A plan cannot be attached to this model; the model is as it was before."""


class CalibrationError(PlacedError, RuntimeError):
    """Calibration saw nothing, or nothing usable, for a target that needs it."""


class SessionError(PlacedError, RuntimeError):
    """Session methods were called in an order that cannot work; the text names the missing call."""


@attrs.frozen
class Refusal:
    """Why a target cannot be exported.

    Attributes:
        reason: what it is, what would fit, and what to do.
        target: its full name, or None where it is the model as a whole.
    """

    reason: str
    target: str | None = None

    def __str__(self) -> str:
        return f"{self.target}: {self.reason}" if self.target else self.reason


class ExportError(PlacedError, ValueError):
    """A session cannot become an exported program, or a format cannot hold it.

    Args:
        refusals: why, one for each target; or the reason alone.
        target: full name of the only target that is refused, or None.
        path: where the document asks for the export, or None.
        format: the format that was asked for, or None.
    """

    def __init__(
        self,
        refusals: str | Sequence[Refusal],
        *,
        target: str | None = None,
        path: str | None = None,
        format: str | None = None,
    ) -> None:
        if isinstance(refusals, str):
            refusals = (Refusal(refusals, target),)
        self.refusals = tuple(refusals)
        self.format = format
        lines = [_cut(str(one)) for one in self.refusals[:_SHOWN]]
        if len(self.refusals) > _SHOWN:
            lines.append(f"... and {len(self.refusals) - _SHOWN} more, listed in refusals")
        head = f"{format}: " if format else ""
        if len(lines) == 1:
            text = head + lines[0]
        else:
            text = "\n".join([f"{head}{len(self.refusals)} targets cannot be exported:", *lines])
        super().__init__(text, target=self.refusals[0].target if self.refusals else target)
        self.path = path

    @property
    def reason(self) -> str:
        """Why the first target is refused."""
        return self.refusals[0].reason

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild_export_error, (self.refusals, self.path, self.format), self.__dict__


def _rebuild_export_error(
    refusals: tuple[Refusal, ...], path: str | None, format: str | None
) -> ExportError:
    return ExportError(refusals, path=path, format=format)


class TrainingError(TerselyError, RuntimeError):
    """The built-in training loop of a job cannot continue, because its loss is not finite."""


class BenchmarkError(TerselyError, RuntimeError):
    """A benchmark has nothing to measure, or a candidate failed; the text names it."""


class CompressionWarning(UserWarning):
    """Something is less than the config suggests, as its effect or its precision; names targets."""


class SessionFileError(TerselyError, OSError):
    """A saved session is damaged, incomplete or belongs to another model.

    Args:
        message: what was found, what was expected, and what to do.
        path: the file or folder, or the URL of a database without its password, or None.
        target: full name of the target or tensor that does not fit, or None.
    """

    def __init__(
        self,
        message: str,
        *,
        path: str | os.PathLike[str] | None = None,
        target: str | None = None,
    ) -> None:
        super().__init__(message)
        self.path = None if path is None else os.fspath(path)
        self.target = target
