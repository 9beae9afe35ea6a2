"""Stacks of experts that read the input of their module, so that one factor divides it for all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import attrs
from torch import Tensor, nn

from tersely.calibration.observing import evaluating
from tersely.engine.context import Context
from tersely.engine.observation.batches import run_batch
from tersely.engine.processes import failing_together, gather
from tersely.engine.targets.binding import BoundTarget
from tersely.instrument.modules.classes import is_sharded
from tersely.instrument.scales.input_scales import along_inputs
from tersely.quantization.factors.input_factors import input_of
from tersely.quantization.factors.output_forms import along_dim
from tersely.quantization.factors.recording import Print, print_of, tensors_in
from tersely.quantization.factors.trials import growth
from tersely.quantization.ranges import RangeObservers


def stacks_with_one_input(
    weights: Sequence[BoundTarget], context: Context, bound_targets: Sequence[BoundTarget]
) -> set[BoundTarget]:
    """Return the stacks of experts that alone read a quantized input of their module.

    Each call of the module is repeated with channels of the input multiplied by powers of two and
    the stack divided by them, which changes no bit of the result where the stack alone reads it.

    Args:
        weights: weights that will have factors.
        context: what a session's engines share; the model is left as it was.
        bound_targets: all quantization targets.

    Returns:
        None of a module that has several, since the input can be divided once.
    """
    trials: dict[nn.Module, list[_Trial]] = {}
    for bound in weights:
        is_whole = not bound.others and not is_sharded(bound.raw)
        if bound.plan.has_experts and is_whole and input_of(bound_targets, bound.module):
            trials.setdefault(bound.module, []).append(_Trial(bound))
    if not trials or context.batches is None:
        return set()
    batches, modules = context.batches, [one.module for one in bound_targets]
    hooks = [
        module.register_forward_hook(_repeating(some), with_kwargs=True)
        for module, some in trials.items()
    ]
    try:
        with (
            failing_together(context.model),
            RangeObservers((), modules, {}).listening(),
            evaluating(context.model),
        ):
            run_batch(context.model, batches.batches[0], forward=batches.forward, mask=batches.mask)
    finally:
        for hook in hooks:
            hook.remove()
    found: set[BoundTarget] = set()
    for some in trials.values():
        everyone = gather([one.answer for one in some])
        passed = [
            one.bound
            for one, *answers in zip(some, *everyone, strict=True)
            if True in answers and False not in answers
        ]
        found.update(passed if len(passed) == 1 else ())
    return found


@attrs.define(eq=False)
class _Trial:
    """What calls of a module have shown of one stack; mutable, because calls add to it.

    Attributes:
        bound: the stack.
        answer: whether it alone reads the input; None before a call that tells.
    """

    bound: BoundTarget
    answer: bool | None = None

    def see(self, compute: Callable[[Tensor], list[Print]], value: Tensor) -> None:
        """Learn from one call.

        Args:
            compute: repeats the call with another input.
            value: the input.
        """
        raw, plan = self.bound.raw, self.bound.plan
        if not value.numel() or self.answer is False:
            return
        expected = compute(value)
        is_fitting = value.is_floating_point() and -value.ndim <= plan.channel_dim < value.ndim
        channels = raw.shape[plan.input_dim]
        if not is_fitting or value.shape[plan.channel_dim] != channels:
            self.answer = False
            return
        factors = growth(channels, self.bound, place=0)
        grown = value * along_dim(factors.to(value), plan.channel_dim % value.ndim, value.ndim)
        if compute(grown) == expected:
            return  # nothing read the input, as where no row of this call reached an expert
        before = raw.detach().clone()
        try:
            raw.div_(along_inputs(factors.to(raw), raw, plan.input_dim))
            found = compute(grown)
        finally:
            raw.copy_(before)
        # A call that is random passes no trial, and a second one like the first shows it.
        self.answer = found == expected == compute(value)


def _repeating(trials: Sequence[_Trial]) -> Callable[..., None]:
    def see(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
        names = [name for name, one in kwargs.items() if isinstance(one, Tensor)]
        place = next((i for i, one in enumerate(args) if isinstance(one, Tensor)), None)
        if place is None and not names:
            return
        value = kwargs[names[0]] if place is None else args[place]

        def compute(value: Tensor) -> list[Print]:
            given = list(args)
            if place is None:
                found = module.forward(*given, **{**kwargs, names[0]: value})
            else:
                given[place] = value
                found = module.forward(*given, **kwargs)
            return list(map(print_of, tensors_in(found)))

        for one in trials:
            one.see(compute, value)

    return see
