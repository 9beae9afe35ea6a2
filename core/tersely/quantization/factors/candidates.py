"""What may make the input of some weights: told by numbers of channels, in the order of calls."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence

from torch import Tensor, nn

from tersely.engine.targets.binding import Binding, BoundTarget
from tersely.quantization.factors.output_forms import OutputForm, forms_of
from tersely.quantization.factors.output_rows import row_layouts
from tersely.quantization.factors.recording import Record
from tersely.quantization.factors.trials import Candidate, channels_of
from tersely.quantization.scale_buffers import read_buffer

_HEAD_SIZES = ("head_dim", "v_head_dim", "head_size", "attention_head_size")

_NEAREST = 3
"""How many modules before a weight are tried, of those whose outputs may be its inputs."""


def before_them(
    group: Sequence[BoundTarget], reference: Record, heads: Collection[int], *, is_tying: bool
) -> Iterator[Candidate]:
    """Yield the modules called before some weights that may make their input, the nearest first.

    Args:
        group: weights that read one and the same input.
        reference: what the model calls in which order.
        heads: the sizes that heads of attention have; none says that the usual ones will do.
        is_tying: whether only those are asked for of which one output serves several inputs, or
            else those that the weights' factors allow.
    """
    factors = None if is_tying else read_buffer(group[0], "input_scale")
    modules = {bound.module for bound in group}
    first = next((i for i, one in enumerate(reference.order) if one in modules), None)
    if first is None:
        return
    count = 0
    for module in dict.fromkeys(reversed(reference.order[:first])):
        forms = forms_of(module, channels_of(group[0]), heads=heads)
        for form in () if any(map(Tensor.is_inference, module.parameters())) else forms:
            if repeats(form) if factors is None else form.allows(factors):
                yield Candidate(tuple(group), module, form)
        count += bool(forms)
        if count == _NEAREST:
            return


def among_experts(bound: BoundTarget) -> Iterator[Candidate]:
    """Yield the rows of the other matrices of the same experts that may make their input.

    Args:
        bound: a weight that stacks a matrix for each expert.
    """
    channels, dim, own = channels_of(bound), bound.plan.output_dim, bound.raw
    for name, weight in bound.module._parameters.items():
        if weight is None or weight is own or weight.ndim != own.ndim or len(weight) != len(own):
            continue
        if weight.shape[dim] == channels:
            yield Candidate((bound,), bound.module, OutputForm(dim, weight=name))
        for rows in row_layouts(weight.shape[dim], channels):
            if rows.repeats == 1:
                yield Candidate((bound,), bound.module, OutputForm(dim, rows=rows, weight=name))


def repeats(form: OutputForm) -> bool:
    """Tell whether one output serves several inputs.

    Args:
        form: how a module's outputs are the inputs of a weight.
    """
    return form.rows is not None and form.rows.repeats > 1


def may_repeat(modules: Iterable[nn.Module], bound: BoundTarget) -> bool:
    """Tell whether a weight may read outputs of some module several times.

    Args:
        modules: all modules of the model.
        bound: the weight.
    """
    if bound.plan.has_experts:
        return False
    channels = channels_of(bound)
    return any(map(repeats, (form for one in modules for form in forms_of(one, channels))))


def sizes_of_heads(modules: Iterable[nn.Module]) -> set[int]:
    """Return the sizes that heads of attention have, as far as modules state them.

    Args:
        modules: all modules of the model.
    """
    found = {getattr(module, name, None) for module in modules for name in _HEAD_SIZES}
    return {one for one in found if type(one) is int}


def kind_of(candidate: Candidate, binding: Binding) -> object:
    """Return what candidates have in common that differ by the number of their block alone.

    Args:
        candidate: a module and the weights whose factors it may take.
        binding: knows the names of modules.
    """
    names = [binding.name_of(candidate.module), *(one.plan.name for one in candidate.targets)]
    paths = [tuple("#" if part.isdecimal() else part for part in name.split(".")) for name in names]
    numbers = [[int(part) for part in name.split(".") if part.isdecimal()] for name in names]
    ahead = tuple(one - other for one, other in zip(numbers[0], numbers[1], strict=False))
    return (type(candidate.module), candidate.form, tuple(paths), ahead)
