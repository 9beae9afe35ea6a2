"""What all engines save the same way: observations, learned tensors, and changed values."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from functools import partial
from typing import Any

from torch import Tensor

from tersely.engine.optimizing import make_optimizer
from tersely.engine.run import Run
from tersely.engine.state.journal import Journal
from tersely.engine.state.saver import (
    Grammar,
    Parts,
    Saved,
    check_moments,
    moments_of,
    need_shape,
    unknown,
)
from tersely.engine.targets.binding import BoundTarget


def gather_runs(runs: Iterable[Run[Any]]) -> Parts:
    """Return what stages have observed and learned, and the state of their optimizers.

    Args:
        runs: the running stages.
    """
    found: Parts = {}
    leaves: dict[tuple[str, str], dict[str, Tensor]] = {}
    for run in runs:
        for bound, sums in run.observed.items():
            copies = {part: tensor.clone() for part, tensor in sums.items()}
            found["observed", bound.plan.name] = copies
        learned = run.all_learned()
        for (target, name), leaf in learned.items():
            leaves.setdefault(("learned", target), {})[name] = leaf.detach().clone()
        found |= moments_of(run.optimizer, learned)
    return found | leaves


def gather_originals(originals: Mapping[BoundTarget, Tensor]) -> Parts:
    """Return values that an algorithm changed, and their previous values.

    Args:
        originals: target -> its values before.
    """
    found: Parts = {}
    for bound, values in originals.items():
        found["original", bound.plan.name] = {"": values}
        found["value", bound.plan.name] = {"": bound.dense()}
    return found


def restore_observed(runs: Iterable[Run[Any]], saved: Saved) -> None:
    """Give stages back what they had observed.

    Args:
        runs: the running stages.
        saved: a checked state.
    """
    for run in runs:
        run.observed = {
            bound: {part: one.to(bound.raw.device) for part, one in sums.items()}
            for bound in run.all_bound_targets
            if (sums := saved.of("observed", bound.plan.name))
        }


def restore_originals(
    originals: dict[BoundTarget, Tensor],
    bound_targets: Iterable[BoundTarget],
    saved: Saved,
    journal: Journal,
) -> None:
    """Give targets the values that an algorithm had changed when the state was saved.

    Args:
        originals: target -> its values before an algorithm changed them; gets these.
        bound_targets: all targets of the method.
        saved: a checked state.
        journal: notes what changes.
    """
    for bound in bound_targets:
        values = saved.one("value", bound.plan.name)
        original = saved.one("original", bound.plan.name)
        if values is None or original is None:
            continue
        journal.note_values(bound)
        bound.write(values)
        originals.setdefault(bound, original.to(bound.raw.device))


def check_names(grammar: Grammar, known: Container[str], saved: Saved) -> None:
    """Refuse tensors of targets that the plan does not have.

    Args:
        grammar: how the engine names its tensors.
        known: names that its tensors can belong to.
        saved: the state.

    Raises:
        SessionFileError: there is such a tensor.
    """
    for (kind, name), parts in saved.parts.items():
        if name not in known:
            raise unknown(grammar.key(kind, name, next(iter(parts))))


def check_originals(bound_targets: Iterable[BoundTarget], saved: Saved) -> None:
    """Refuse changed values of another shape than their target's.

    Args:
        bound_targets: all targets of the method.
        saved: the state.

    Raises:
        SessionFileError: the shapes differ.
    """
    for bound in bound_targets:
        for kind in ("value", "original"):
            values = saved.one(kind, bound.plan.name)
            if values is not None:
                need_shape(kind, bound, values, bound.plan.shape or ())


def check_learned_moments(runs: Iterable[Run[Any]], saved: Saved) -> None:
    """Refuse optimizer state that does not fit what stages learn.

    Args:
        runs: the running stages.
        saved: the state.

    Raises:
        SessionFileError: something is missing, of another shape, or not finite.
    """
    for run in runs:
        learned = {
            (bound.plan.name, name): leaf
            for bound in run.all_bound_targets
            for name, leaf in saved.of("learned", bound.plan.name).items()
        }
        check_moments(partial(make_optimizer, run.algorithm), learned, saved)
