"""Parameters that stack one tensor for each expert, and targets of single experts.

The parts of a target of shape (experts, outputs, inputs) for expert e; a parameter of shape
(experts, outputs), such as biases, also loses its first dimension.

==============  ============================  ===============================
part            of all experts                of one
==============  ============================  ===============================
name            ``experts.down_proj``         ``experts.down_proj[e]``
tensor          (experts, outputs, inputs)    (outputs, inputs)
blocks          size (1, a, b)                size (a, b)
observed        (experts, ...) each           (...) each
dimensions      output_dim, input_dim         one less each
==============  ============================  ===============================
"""

from __future__ import annotations

from functools import partial
from typing import TypeVar

import attrs
from torch import Tensor

from tersely.arithmetic.blocks import Blocks
from tersely.contracts.kinds import Method
from tersely.contracts.pruner import PruningTarget
from tersely.contracts.quantizer import QuantizationTarget
from tersely.contracts.target_plan import TargetPlan

Target = TypeVar("Target", PruningTarget, QuantizationTarget)


def plan_of_expert(plan: TargetPlan, expert: int) -> TargetPlan:
    """Return the plan of one expert's tensor.

    Args:
        plan: the plan of the stacked parameter.
        expert: its index.
    """
    return attrs.evolve(
        plan,
        shape=None if plan.shape is None else plan.shape[1:],
        blocks=None if plan.blocks is None else blocks_of_expert(plan.blocks),
        output_dim=plan.output_dim - 1,
        input_dim=plan.input_dim - 1,
        has_experts=False,
        expert=expert,
    )


def blocks_of_expert(blocks: Blocks) -> Blocks:
    """Return the blocks of one expert's tensor.

    Args:
        blocks: the blocks of the stacked parameter, from `blocks_of_experts`.
    """
    scope = None if blocks.scope is None else blocks.scope[1:]
    is_whole = scope is None or all(length == -1 for length in scope)
    return Blocks(blocks.size[1:], None if is_whole else scope, blocks.keep)


def blocks_of_experts(blocks: Blocks, method: Method) -> Blocks:
    """Return the blocks of a stacked parameter whose experts have equal blocks (rule G5).

    Args:
        blocks: the blocks of each expert's tensor.
        method: in pruning, a ratio is met in each expert, unless blocks are whole experts.
    """
    rank = len(blocks.size)
    scope = blocks.scope
    if scope is None and method == "pruning" and any(length != -1 for length in blocks.size):
        scope = (-1,) * rank
    return Blocks((1, *blocks.size), None if scope is None else (1, *scope), blocks.keep)


def of_expert(target: Target, expert: int) -> Target:
    """Return one expert's tensor as an algorithm sees the weight of a linear layer.

    Args:
        target: the stacked parameter.
        expert: its index.

    Raises:
        ValueError: the target is an input or output.
    """
    if target.tensor is None:
        raise ValueError(f"{target.name} is an input or output, which is not divided among experts")
    part = attrs.evolve(
        target,
        plan=plan_of_expert(target.plan, expert),
        tensor=target.tensor[expert],
        blocks=blocks_of_expert(target.blocks),
        observed={name: sums[expert] for name, sums in target.observed.items()},
    )
    if isinstance(part, PruningTarget):
        # Still that of the stacked parameter, which `evolve` has copied.
        return attrs.evolve(part, in_force=partial(_mask_of_expert, part, expert))
    return part


def _mask_of_expert(whole: PruningTarget, expert: int) -> Tensor | None:
    mask = whole.mask
    return None if mask is None else mask[expert]
