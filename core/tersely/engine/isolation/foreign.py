"""Calls of an algorithm's code: an error of it, or of what it returned, names the algorithm."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType

from tersely.contracts.target_plan import TargetPlan
from tersely.errors import PlanError, PluginError, TerselyError


class ForeignCall:
    """A context in which a plugin's code runs.

    Errors of this package pass, as the core raised them for the plugin. Any other exception becomes
    a PluginError with what the plugin raised as its cause. KeyboardInterrupt and SystemExit pass.

    A class rather than a generator, as it is entered once for each target.

    Args:
        failure: the head of the error: what failed, and on what.
        plugin: the algorithm's name.
        target: full name of the target that it works on, or None.
        refusal: makes the error of a ValueError, with which a plugin says that what it was given
            does not suit it; None where a ValueError is a failure as any other.
    """

    __slots__ = ("failure", "plugin", "refusal", "target")

    def __init__(
        self,
        failure: str,
        *,
        plugin: str,
        target: str | None = None,
        refusal: Callable[[ValueError], TerselyError] | None = None,
    ) -> None:
        self.failure = failure
        self.plugin = plugin
        self.target = target
        self.refusal = refusal

    def __enter__(self) -> None:
        pass

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None or isinstance(error, TerselyError) or not isinstance(error, Exception):
            return
        if self.refusal is not None and isinstance(error, ValueError):
            raise self.refusal(error) from error
        raise PluginError(
            f"{self.failure}: {type(error).__name__}: {error}",
            plugin=self.plugin,
            target=self.target,
        ) from error


def calling(plan: TargetPlan, method: str) -> ForeignCall:
    """Return the context of one method's call for one target.

    A ValueError says that the target does not suit the algorithm: a PlanError.

    Args:
        plan: the target's.
        method: the method's name.
    """

    def refusal(error: ValueError) -> PlanError:
        return PlanError(f"{plan.origin.path}: {plan.name}: {error}", **plan.place)

    failure = f"{plan.algorithm} failed in {method}() of {plan.name}"
    return ForeignCall(failure, plugin=plan.algorithm, target=plan.name, refusal=refusal)


def wrong_return(plan: TargetPlan, found: str, expected: str) -> PluginError:
    """Return the error for what an algorithm returned for a target and must not.

    Args:
        plan: the target's.
        found: what it returned, in words.
        expected: what would be right, in words.
    """
    return PluginError(
        f"{plan.algorithm} returned {found} for {plan.name}; expected {expected}",
        plugin=plan.algorithm,
        target=plan.name,
    )
