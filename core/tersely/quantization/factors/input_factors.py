"""The factors of input channels: chosen, multiplied into a weight, and divided out of its input."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TypeAlias

import attrs
import torch
from torch import Tensor, nn

from tersely.contracts.experts import of_expert
from tersely.contracts.quantized_weights import Equalizes
from tersely.contracts.quantizer import QuantizationTarget
from tersely.engine.isolation.foreign import calling
from tersely.engine.observation.sums import is_blank, observed_together
from tersely.engine.state.cutting import Cut
from tersely.engine.state.saver import Saved
from tersely.engine.targets.binding import BoundTarget
from tersely.errors import CalibrationError, SessionError
from tersely.instrument.modules.classes import instruments_of
from tersely.instrument.names import SCALE, UNSCALE, state_buffer
from tersely.instrument.scales.input_scales import ScaleChannels
from tersely.instrument.transforms import put
from tersely.planning.targets.addresses import parse_address
from tersely.quantization.factors.output_rows import OutputRows
from tersely.quantization.ranges import values_of
from tersely.quantization.run import QuantizationRun, is_matrix
from tersely.quantization.scale_buffers import read_buffer, write_buffer
from tersely.quantization.targets import target_of

FindTies: TypeAlias = (
    "Callable[[Sequence[tuple[BoundTarget, ...]]], Mapping[BoundTarget, OutputRows]]"
)
"""From groups of weights to those whose factors have to be equal for some inputs, and which."""


@attrs.frozen(eq=False)
class Reading:
    """What a session knows of how weights read their inputs.

    Attributes:
        find_ties: tells which weights read some values several times.
        find_stacks: tells which stacks of experts alone read the quantized input of their module.
        bound_targets: all quantization targets.
    """

    find_ties: FindTies
    find_stacks: Callable[[Sequence[BoundTarget]], Collection[BoundTarget]]
    bound_targets: Sequence[BoundTarget]


def input_of(bound_targets: Sequence[BoundTarget], module: nn.Module) -> str | None:
    """Return the quantized target that is a module's first input, as it is spelled, or None.

    Args:
        bound_targets: all quantization targets.
        module: the module.
    """
    for bound in bound_targets:
        if bound.module is module and bound.plan.kind == "input":
            address = parse_address(bound.plan.target)
            if address is not None and address.is_first:
                return bound.plan.target
    return None


def place_factors(bound_targets: Sequence[BoundTarget], bound: BoundTarget) -> None:
    """Put in the steps that multiply the input channels of a weight, and that undo it.

    They do nothing until there are factors, which `compress` finds or a checkpoint brings.

    Args:
        bound_targets: all quantization targets.
        bound: the weight; of a stack of experts it depends on its factors where they go.
    """
    plan = bound.plan
    # The other holders of a tied weight read the same values, and nothing divides their inputs.
    has_source = not bound.others and not has_own_factors(bound)
    source = input_of(bound_targets, bound.module) if has_source else None
    for module, attribute in bound.owners:
        buffer = state_buffer(attribute, "input_scale")
        scaled = ScaleChannels(buffer, plan.input_dim, is_of_experts=plan.has_experts)
        put(module, attribute, (scaled,), place=SCALE)
        if plan.has_experts:
            _divide_no_more(module, buffer)
        if source is None:
            put(module, attribute, (scaled.undone(),), place=UNSCALE)
        else:
            divided = ScaleChannels(buffer, plan.channel_dim, divides=True)
            put(module, attribute, (), place=UNSCALE)
            put(module, source, (divided,), place=SCALE)


def has_own_factors(bound: BoundTarget) -> bool:
    """Tell whether each expert of a stack has factors of its own, or none yet.

    Args:
        bound: a weight.

    Returns:
        False where all experts share those of their input, and for other weights.
    """
    factors = read_buffer(bound, "input_scale")
    return bound.plan.has_experts and (factors is None or factors.ndim > 1)


def _divide_no_more(module: nn.Module, buffer: str) -> None:
    for site, steps in instruments_of(module).inputs.items():
        if any(isinstance(step, ScaleChannels) and step.buffer == buffer for step in steps):
            put(module, site.target, (), place=SCALE)


def cut_factors(
    bound_targets: Sequence[BoundTarget], saved: Saved, cuts: Mapping[str, Cut]
) -> dict[BoundTarget, Tensor]:
    """Return what stays of saved factors, which have the shape of an input and not of a weight.

    Args:
        bound_targets: all quantization targets.
        saved: the state before it is cut.
        cuts: parameter or buffer -> what stays of it.

    Raises:
        SessionError: the input channels of a weight form groups.
    """
    found: dict[BoundTarget, Tensor] = {}
    for bound in bound_targets:
        cut, buffers = cuts.get(bound.plan.name), saved.of("buffer", bound.plan.name)
        if cut is None or "input_scale" not in buffers:
            continue
        one = cut.of_inputs(buffers["input_scale"], bound.plan.input_dim)
        if one is None:
            raise SessionError(
                f"shrink() cannot cut the factors of the inputs of {bound.plan.name}, since "
                f"its channels form groups; shrink before {bound.plan.algorithm}",
                **bound.plan.place,
            )
        found[bound] = one
    return found


def without_factors(saved: Saved, factors: Mapping[BoundTarget, Tensor]) -> Saved:
    """Return a state without some factors.

    Args:
        saved: the state.
        factors: those of some weights.
    """
    parts = dict(saved.parts)
    for bound in factors:
        buffers = saved.of("buffer", bound.plan.name)
        parts["buffer", bound.plan.name] = {
            part: tensor for part, tensor in buffers.items() if part != "input_scale"
        }
    return Saved(parts, saved.data)


def put_factors(saved: Saved, factors: Mapping[BoundTarget, Tensor]) -> None:
    """Put factors into a state.

    Args:
        saved: the state; changed.
        factors: those of some weights.
    """
    for bound, one in factors.items():
        own = saved.parts["buffer", bound.plan.name]
        saved.parts["buffer", bound.plan.name] = {**own, "input_scale": one}


def describe_shared(runs: Sequence[QuantizationRun]) -> list[list[str]]:
    """Return the names of the targets that read one and the same input, as calibration saw it.

    Args:
        runs: all stages.
    """
    found: dict[int, list[str]] = {}
    for run in runs:
        for bound, observed in run.observed.items():
            found.setdefault(id(observed), []).append(bound.plan.name)
    return [names for names in found.values() if len(names) > 1]


def share_again(runs: Sequence[QuantizationRun], saved: Saved) -> None:
    """Let restored targets that read one and the same input share what was observed of it again.

    Args:
        runs: all stages, with what each target observed restored; cutting may have left some out.
        saved: a checked state.
    """
    places = {bound.plan.name: (run, bound) for run in runs for bound in run.observed}
    for names in saved.data.get("shared_inputs", []):
        members = [places[name] for name in names if name in places]
        for run, bound in members[1:]:
            first_run, first = members[0]
            if _are_equal(first_run.observed[first], run.observed[bound]):
                run.observed[bound] = first_run.observed[first]


def _are_equal(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    is_alike = one.keys() == other.keys()
    return is_alike and all(torch.equal(one[key], other[key].to(one[key])) for key in one)


def equalize(
    run: QuantizationRun,
    quantizer: Equalizes,
    bound_targets: Sequence[BoundTarget],
    *,
    reading: Reading,
) -> None:
    """Let an algorithm choose the factors of inputs, one for the weights that read one input.

    Args:
        run: the stage; it gets the groups of weights.
        quantizer: its algorithm.
        bound_targets: weights of the stage.
        reading: how weights read their inputs.

    Raises:
        CalibrationError: factors are not positive.
    """
    groups: dict[int, list[BoundTarget]] = {}
    for bound in bound_targets:
        is_product = is_matrix(bound) and not isinstance(bound.module, nn.Embedding)
        if run.observed.get(bound) and is_product and not is_blank(run.observed[bound]):
            groups.setdefault(id(run.observed[bound]), []).append(bound)
    ties = reading.find_ties(tuple(map(tuple, groups.values())))
    sharing = reading.find_stacks([bound for group in groups.values() for bound in group])
    for members in groups.values():
        for bound in members:
            write_buffer(bound, "input_scale", None)
        targets = [
            target_of(
                bound,
                run.grid(bound),
                tensor=values_of(bound),
                observed=run.observed[bound],
            )
            for bound in members
        ]
        with torch.no_grad():
            factors = _chosen(quantizer, targets, is_shared=members[0] in sharing)
            rows = ties.get(members[0])
            factors = factors if rows is None else rows.tied(factors)
        if not bool((factors.isfinite() & (factors > 0)).all()):
            raise CalibrationError(
                f"{members[0].plan.name}: {members[0].plan.algorithm} found input scales that are "
                "not positive; calibrate with more batches",
                **members[0].plan.place,
            )
        for bound in members:
            write_buffer(bound, "input_scale", factors.to(bound.raw.device))
            if bound.plan.has_experts:
                place_factors(reading.bound_targets, bound)
        run.groups.append(tuple(members))


def _chosen(
    quantizer: Equalizes, targets: Sequence[QuantizationTarget], *, is_shared: bool
) -> Tensor:
    """Return the factors of one input; an expert that no row reached keeps its weights."""
    stacks = [one for one in targets if one.plan.has_experts]
    if not stacks:
        with calling(targets[0].plan, "input_scales"):
            return quantizer.input_scales(targets)
    experts, inputs = _sizes(stacks[0])
    if is_shared:
        parts = [of_expert(one, expert) for one in stacks for expert in range(experts)]
        together = observed_together([one.observed for one in parts], quantizer)
        with calling(targets[0].plan, "input_scales"):
            return quantizer.input_scales([one.evolve(observed=together) for one in parts])
    chosen = torch.ones(experts, inputs)
    for expert in range(experts):
        parts = [of_expert(one, expert) for one in stacks]
        if not is_blank(parts[0].observed):
            with calling(parts[0].plan, "input_scales"):
                chosen[expert] = quantizer.input_scales(parts)
    return chosen


def _sizes(target: QuantizationTarget) -> tuple[int, int]:
    shape = target.plan.shape or ()
    return shape[0], shape[target.plan.input_dim]
