"""Scales that an algorithm learns: placed in modules as leaves, or adopted from a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from tersely.contracts.quantized_forward import LearnsScales
from tersely.engine.isolation.foreign import calling
from tersely.engine.state.saver import Saved, restore_moments
from tersely.engine.targets.binding import BoundTarget
from tersely.errors import PluginError
from tersely.instrument.names import QUANTIZE, learned_buffer, state_buffer
from tersely.instrument.scales.by_algorithm import Learned
from tersely.instrument.transforms import put
from tersely.quantization.ranges import Seen, values_of
from tersely.quantization.returned_values import check_qparams, check_simulated
from tersely.quantization.run import QuantizationRun, learned_of
from tersely.quantization.targets import target_of


def adopt_learned(run: QuantizationRun) -> None:
    """Let the session move what a checkpoint brought, the same tensor for every holder.

    Args:
        run: a stage; nothing happens where it learns nothing or has an optimizer.
    """
    if not run.is_learning or run.optimizer is not None:
        return
    has_learned = False
    for bound in (*run.parameters, *run.activations):
        for name, leaf in learned_of(bound).items():
            has_learned = True
            for module, attribute in bound.others:
                buffer = learned_buffer(attribute, name)
                twin, module._buffers[buffer] = module._buffers[buffer], leaf
                if twin is not None and twin is not leaf and twin.grad is not None:
                    leaf.grad = twin.grad if leaf.grad is None else leaf.grad + twin.grad
    if has_learned:
        run.make_optimizer()


def place_learned(run: QuantizationRun, bound: BoundTarget, seen: Seen | None) -> list[Tensor]:
    """Let an algorithm learn the scale of a target, and return the new leaves.

    Args:
        run: the stage.
        bound: a target whose scale is in force.
        seen: what calibration saw of it, for an input or output.

    Raises:
        PluginError: the algorithm returned something else than float tensors, or what they mean
            does not fit the target.
    """
    learner = run.algorithm
    if not isinstance(learner, LearnsScales) or not run.is_simulated(bound):
        return []
    plain = run.quantize_step(bound)
    start = plain.qparams(bound.module)
    if start is None:
        return []
    tensor = None if bound.is_activation else values_of(bound)
    statistics = dict(seen.statistics) if seen is not None else {}
    if tensor is not None and tensor.numel():
        statistics = dict(run.observer(bound).observe(tensor, plain.cut.size_of(tensor)))
    size = seen.blocks if seen is not None else None
    target = target_of(bound, plain.grid, tensor=tensor, size=size, statistics=statistics)
    with calling(bound.plan, "start"):
        values = learner.start(start, target)
    for name, value in values.items():
        found: object = value
        if not (isinstance(found, Tensor) and found.is_floating_point()):
            raise PluginError(
                f"{bound.plan.algorithm} starts to learn {name!r} of {bound.plan.name} with "
                f"{type(value).__name__}; expected a float tensor",
                plugin=bound.plan.algorithm,
                target=bound.plan.name,
            )
    with torch.no_grad():
        with calling(bound.plan, "meaning"):
            meaning = learner.meaning(start, values)
        check_qparams(meaning, target, start.scale.shape, what=" in meaning()")
        if tensor is not None:
            with calling(bound.plan, "learned_values"):
                found = learner.learned_values(tensor, start, values, target.evolve(tensor=None))
            check_simulated(found, tensor, target, what="learned_values()")
    return place_leaves(run, bound, values, seen=seen)


def place_leaves(
    run: QuantizationRun, bound: BoundTarget, values: Mapping[str, Tensor], *, seen: Seen | None
) -> list[Tensor]:
    """Put values that are learned into the buffers of every holder of a target, and use them.

    A buffer that requires a gradient is a leaf like a parameter, but it is not in
    ``model.parameters()``, so the user's optimizer never sees it.

    Args:
        run: the stage.
        bound: the target.
        values: what is learned, by name.
        seen: what calibration saw of it, for an input or output.

    Returns:
        The leaves.
    """
    learner = run.algorithm
    assert isinstance(learner, LearnsScales)  # the caller has checked
    plain = run.quantize_step(bound)
    device = bound.module._buffers[state_buffer(bound.plan.target, "scale")]
    assert device is not None  # a learned target has started from a scale
    leaves = {
        name: value.detach().to(device.device, copy=True).requires_grad_()
        for name, value in sorted(values.items())
    }
    size = seen.blocks if seen is not None else None
    bare = target_of(bound, plain.grid, size=size)
    for module, attribute in bound.owners:
        for name, leaf in leaves.items():
            module._buffers[learned_buffer(attribute, name)] = leaf
        step = Learned(learner, bare, run.quantize_step(bound, attribute), tuple(leaves))
        put(module, attribute, (step,), place=QUANTIZE)
    return list(leaves.values())


def renew_optimizer(run: QuantizationRun, saved: Saved) -> None:
    """Make a new optimizer for what a stage learns, with the state of the one before.

    Args:
        run: a stage; it has no optimizer where it has learned nothing yet.
        saved: a state with that of the optimizer before.
    """
    learned = run.all_learned()
    run.optimizer = None
    if learned:
        run.make_optimizer()
        restore_moments(run.optimizer, learned, saved)
