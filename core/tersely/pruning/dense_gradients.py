"""Where the gradients of masked elements come from, for algorithms that ask for them."""

from __future__ import annotations

from collections.abc import Iterable

from tersely.engine.targets.binding import BoundTarget
from tersely.instrument.masks.dense_gradients import DenseGradient
from tersely.instrument.masks.mask_transforms import ParameterMask
from tersely.instrument.modules.classes import is_sharded
from tersely.instrument.names import DENSE, MASK, mask_buffer
from tersely.instrument.transforms import SharedPut


def place_dense_gradients(
    bound_targets: Iterable[BoundTarget], hold: str
) -> dict[BoundTarget, DenseGradient]:
    """Let masked parameters receive gradients where they are masked as well.

    A parameter that is masked in place and a mask that is added need nothing: the parameter's own
    gradient is that of all its elements.

    Args:
        bound_targets: the targets of a stage, whose modules are instrumented.
        hold: where its masks take effect.

    Returns:
        What receives the gradients of each of the others.
    """
    found: dict[BoundTarget, DenseGradient] = {}
    shared = SharedPut(MASK)
    steps: dict[str, ParameterMask] = {}
    for bound in bound_targets:
        is_held = hold == "step" and not is_sharded(bound.raw)
        if is_held or bound.is_additive or bound.is_activation:
            continue
        dense = found[bound] = DenseGradient()
        for module, attribute in bound.owners:
            buffer = mask_buffer(attribute)
            module.__dict__.setdefault(DENSE, {})[buffer] = dense
            step = ParameterMask(buffer, is_held=hold == "step", is_dense=True)
            shared.put(module, attribute, steps.setdefault(attribute, step))
        if not is_sharded(bound.raw):
            dense.fit(bound.raw.detach())
    return found
