"""Masks in force: written to and read from the buffers of every module that holds a target.

Each target has a buffer from attach on, so that a copy of the model that is made early has as many
as the model later. Code that averages copies pairs buffers by their order, and silently pairs the
wrong ones where one is missing. Until there is a mask the buffer is empty and
of a shape that no mask fits into, so averaging such a copy is an error.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

import torch
from torch import Tensor, nn

from tersely.arithmetic.blocks import count_blocks, expand_blocks, is_broadcastable
from tersely.contracts.target_plan import TargetPlan
from tersely.engine.targets.binding import Binding, BoundTarget
from tersely.engine.targets.stacks import kinds_of, stacks_of
from tersely.instrument.masks.mask_transforms import spatial_dims
from tersely.instrument.masks.mask_values import NO_MASK, is_decided
from tersely.instrument.names import mask_buffer
from tersely.masking.counting import count_nonzero
from tersely.planning.targets.owners import find_tensor


def compact(kept: Tensor, size: tuple[int, ...], shape: tuple[int, ...]) -> Tensor:
    """Return a decision per block in the smallest shape that broadcasts to the target.

    Args:
        kept: bool, shape (blocks along each dimension), True = kept.
        size: elements per block, one integer per dimension.
        shape: the target's shape.
    """
    if is_broadcastable(size, shape):
        return kept
    return expand_blocks(kept, size, shape)


def place_masks(binding: Binding, model: nn.Module) -> None:
    """Give every pruning target a buffer for its mask.

    Args:
        binding: the plan, bound to the model, whose modules are instrumented.
        model: the session's model.
    """
    if all(stage.method != "pruning" for stage in binding.plan.recipe.stages):
        return
    of_activations = activation_dtype(model)
    is_plain = binding.owners.is_plain
    # A large model has tens of thousands of targets of few kinds: what is found once is kept.
    names: dict[str, str] = {}
    alike: dict[tuple[torch.dtype, torch.device | None], Tensor] = {}
    for target, module in zip(binding.plan.targets, binding.modules, strict=True):
        if target.method != "pruning":
            continue
        name = names.get(target.target)
        if name is None:
            name = names[target.target] = mask_buffer(target.target)
        buffers = module._buffers
        if buffers.get(name) is not None:
            continue
        kind = _kind_of_mask(target, module, of_activations)
        empty = alike.get(kind)
        if empty is None:
            empty = alike[kind] = torch.empty(NO_MASK, dtype=kind[0], device=kind[1])
        # Nobody writes to it, so that all of a kind may share their memory, of no bytes.
        place = buffers[name] = empty.detach()
        if not is_plain:
            for other, attribute in binding.others(target, module):
                other._buffers[mask_buffer(attribute)] = place


def modules_of_one_element(binding: Binding, stage: int) -> Iterator[nn.Module]:
    """Yield the modules of a stage that have a target whose mask may have one element alone.

    Args:
        binding: the plan, bound to the model.
        stage: index of the stage in the recipe.
    """
    # Attaching comes here with tens of thousands of targets, which nothing has bound yet. They
    # have few shapes, which equal targets share.
    known: dict[tuple[int, int], bool] = {}
    is_plain = binding.owners.is_plain
    for target, module in zip(binding.plan.targets, binding.modules, strict=True):
        if target.stage != stage:
            continue
        key = (id(target.shape), id(target.blocks))
        is_one = known.get(key)
        if is_one is None:
            is_one = known[key] = _may_have_one_element(target)
        if is_one:
            yield module
            if not is_plain:
                yield from (other for other, _ in binding.others(target, module))


def _may_have_one_element(target: TargetPlan) -> bool:
    if target.shape is None or target.kind in ("input", "output"):
        return True  # a batch tells
    # Without blocks of its own it is aligned, element by element.
    blocks = target.blocks
    counts = target.shape if blocks is None else count_blocks(blocks.size, target.shape)
    return math.prod(counts) <= 1


def _kind_of_mask(
    target: TargetPlan, module: nn.Module, of_activations: torch.dtype
) -> tuple[torch.dtype, torch.device | None]:
    if target.kind in ("input", "output"):
        first = _first_parameter(module)
        return of_activations, None if first is None else first.device
    tensor = find_tensor(module, target.target)
    assert tensor is not None  # the plan has its shape
    return tensor.dtype, tensor.device


def _first_parameter(module: nn.Module) -> Tensor | None:
    # Most modules have parameters of their own, which need no walk of those inside.
    for parameter in module._parameters.values():
        if parameter is not None:
            return parameter
    return next(module.parameters(), None)


def activation_dtype(model: nn.Module) -> torch.dtype:
    """Return the dtype that inputs and outputs have in a model.

    Args:
        model: the model.
    """
    for tensor in model.parameters():
        if tensor.is_floating_point():
            return tensor.dtype
    return torch.get_default_dtype()


def remove_mask(bound: BoundTarget, model: nn.Module) -> None:
    """Take a target's mask out of force.

    Args:
        bound: the target.
        model: the session's model.
    """
    dtype, device = _kind_of_mask(bound.plan, bound.module, activation_dtype(model))
    empty = torch.empty(NO_MASK, dtype=dtype, device=device)
    for module, name in bound.masks():
        module._buffers[name] = empty


def mask_of(bound: BoundTarget) -> Tensor | None:
    """Return the buffer that masks a target, or None while nothing masks it."""
    mask = bound.module._buffers.get(mask_buffer(bound.plan.target))
    return None if mask is None or not is_decided(mask) else mask


def is_kept(bound: BoundTarget, mask: Tensor) -> Tensor:
    """Return a mask as bool, True = kept, in its own shape.

    Args:
        bound: the target.
        mask: its buffer, or what this function returned of it.
    """
    if mask.dtype == torch.bool:
        return mask
    return mask == 0 if bound.is_additive else mask != 0


def masked_share(bound: BoundTarget, mask: Tensor) -> float:
    """Return the fraction of a target that its mask masks.

    Args:
        bound: the target.
        mask: its buffer, or bool, True = kept; every element stands for equally many of the
            target's.
    """
    total = mask.numel()
    if not total:
        return 0.0
    found = count_nonzero(mask)
    is_offset = bound.is_additive and mask.dtype != torch.bool
    return (found if is_offset else total - found) / total


def masked_shares(masks: Sequence[tuple[BoundTarget, Tensor]]) -> list[float]:
    """Return the fraction of each target that its mask masks, as `masked_share` does.

    Small masks of one kind are counted together, because a call costs more than the counting.

    Args:
        masks: each target with its buffer, or bool, True = kept.
    """
    found = [0.0] * len(masks)
    tensors = [mask for _, mask in masks]
    kinds, others = kinds_of(tensors)
    for position in others:
        found[position] = masked_share(*masks[position])
    for positions in kinds:
        for some, stack in stacks_of(tensors, positions):
            total, is_binary = stack[0].numel(), stack.dtype == torch.bool
            counts = stack.view(len(some), -1).count_nonzero(1).tolist()
            for position, count in zip(some, counts, strict=True):
                is_offset = not is_binary and masks[position][0].is_additive
                found[position] = (count if is_offset else total - count) / total
    return found


def total_sparsity(masks: Iterable[tuple[BoundTarget, float]]) -> float:
    """Return the masked fraction of all masked parameters and buffers together.

    Args:
        masks: each target with the fraction of it that is masked.
    """
    masked = total = 0
    for bound, share in masks:
        # An input or output has as many elements as a batch gives it, so it is in no total.
        if not bound.is_activation:
            elements = bound.raw.numel()
            masked += round(share * elements)
            total += elements
    return masked / total if total else 0.0


def full_mask(bound: BoundTarget, kept: Tensor, sample_shape: tuple[int, ...] | None) -> Tensor:
    """Return a mask in the target's full shape; for inputs and outputs without the batch.

    Args:
        bound: the target.
        kept: bool, True = kept, a shape that broadcasts to the target.
        sample_shape: the shape of one sample of an input or output, or None while unknown.
    """
    if not bound.is_activation:
        return kept.expand(bound.plan.shape or ()).clone()
    if sample_shape is None:
        sample_shape = _guess_sample_shape(bound, kept)
    if kept.ndim == 1 and bound.plan.channel_dim == 1 and len(sample_shape) > 1:
        kept = kept.view(-1, *(1,) * (len(sample_shape) - 1))
    return kept.expand(sample_shape).clone()


def _guess_sample_shape(bound: BoundTarget, kept: Tensor) -> tuple[int, ...]:
    # Before the first batch only the number of dimensions is known, and only for some types.
    spatial = spatial_dims(bound.plan.module_type) if bound.plan.channel_dim == 1 else None
    if kept.ndim != 1 or spatial is None:
        return tuple(kept.shape)
    return (kept.shape[0], *(1,) * spatial)
