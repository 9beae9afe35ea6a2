"""Boza, Fast and Optimal Weight Update for Pruned Large Language Models, TMLR 2024, algorithm 1,
as ALPS (Meng et al., NeurIPS 2024) has it too: the weights that fit the layer's outputs best are
found by the alternating direction method of multipliers.

Departs from the paper in that masks are chosen once, after the columns were scaled by the norms of
their inputs, and do not become sparser step by step.
"""

import torch

import tersely
from tersely.contracts import ObservesInputs, Solves


class Admm(ObservesInputs, Solves):
    """Keeps what Wanda keeps, and solves for the kept weights.

    Args:
        iterations: of the alternating method.
        damping: added to the diagonal of the Gram matrix, as a share of its mean.
    """

    def __init__(self, *, iterations: int = 20, damping: float = 0.1) -> None:
        self.iterations, self.damping = iterations, damping

    def observe_input(self, inputs: torch.Tensor, target: tersely.PruningTarget):
        gram = 0
        for rows in tersely.input_rows(inputs, target, at_a_time=1 << 20):
            gram = gram + rows.transpose(1, 2).double() @ rows.double()
        return {"gram": gram}  # (groups, columns, columns)

    def solve(self, target: tersely.PruningTarget, choose: tersely.Choose) -> tersely.Solution:
        layout = tersely.matrix_layout(target)
        weights = tersely.to_matrices(target.tensor.detach().double(), layout)
        grams = target.observed["gram"].to(weights)
        lengths = grams.diagonal(dim1=1, dim2=2).sqrt().unsqueeze(1)  # (groups, 1, columns)
        scores = weights.abs() * lengths
        # One call, with the rows of all groups, so that the ratio is met in each row.
        kept = choose(scores.flatten(0, 1).float()).view_as(scores)
        found = [self._solved(*one) for one in zip(weights, grams, lengths, kept, strict=True)]
        shape = target.tensor.shape
        return tersely.Solution(
            tersely.from_matrices(kept, layout, shape),
            tersely.from_matrices(torch.stack(found), layout, shape).to(target.tensor.dtype),
        )

    def _solved(self, weight, gram, lengths, kept):
        # Where no input arrived every value is as good: such columns stay as they are.
        lengths = torch.where(lengths > 0, lengths, 1)
        scaled, target = gram / lengths / lengths.T, weight * lengths
        identity = torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
        scaled = scaled + identity * self.damping * scaled.diagonal().mean().clamp_min(1e-12)
        rho = scaled.diagonal().mean()
        factor = torch.linalg.cholesky(scaled + rho * identity)
        wanted = target @ scaled
        sparse, dual = target * kept, torch.zeros_like(target)
        for _ in range(self.iterations):
            free = torch.cholesky_solve((wanted + rho * (sparse - dual)).T, factor).T
            sparse = (free + dual) * kept
            dual = dual + free - sparse
        return sparse / lengths


@tersely.hookimpl
def tersely_pruners():
    return [
        tersely.PrunerInfo(
            name="admm",
            implementation="admm:Admm",
            summary="Weights that fit the layer's outputs, by alternating directions.",
            paper="Boza, ADMM, TMLR 2024",
            target_kinds=("parameter",),
            granularities=("n_m",),  # besides the default: it decides on elements
            default_granularity="row",
            options={
                "type": "object",
                "properties": {
                    "iterations": {"type": "integer", "minimum": 1, "default": 20},
                    "damping": {"type": "number", "exclusiveMinimum": 0, "default": 0.1},
                },
                "additionalProperties": False,
                "examples": [{"iterations": 50}],
            },
        )
    ]
