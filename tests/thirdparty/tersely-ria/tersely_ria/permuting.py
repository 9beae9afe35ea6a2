"""Inputs put in an order in which a pattern of N:M keeps more of what is important.

Zhang et al., Plug-and-Play: An Efficient Post-training Pruning Method for Large Language Models,
ICLR 2024, section 4.2: channels are sorted by importance and dealt out to the groups of M, so that
no group has several of the most important ones. The linear assignment that refines this in the
paper is left out.
"""

import torch

import tersely
from tersely_ria.algorithms import RelativeImportance


class PermutedImportance(RelativeImportance):
    """Relative importance, counted in an order of inputs of its own."""

    def input_order(self, target: tersely.PruningTarget) -> torch.Tensor:
        """Return the inputs of the first group of neighbours, then those of the second, ..."""
        dim = target.plan.input_dim
        scores = self.importance(target).movedim(dim, 0).flatten(1).sum(1)
        size = (target.blocks.scope or target.blocks.size)[dim]
        inputs = scores.argsort(descending=True, stable=True)
        return inputs.view(size, -1).t().flatten()


class OneOfTwo:
    """One of every two neighbouring inputs is kept."""

    def blocks(self, shape: tuple[int, ...], target: tersely.TargetPlan) -> tersely.Blocks:
        """Return single elements, which compete with their neighbour."""
        has_inputs = target.kind in ("parameter", "buffer") and target.input_dim < len(shape)
        if not has_inputs or shape[target.input_dim] % 2:
            raise ValueError("one_of_two divides parameters with an even number of inputs")
        scope = tuple(2 if dim == target.input_dim else 1 for dim in range(len(shape)))
        return tersely.Blocks(size=(1,) * len(shape), scope=scope, keep=1)
