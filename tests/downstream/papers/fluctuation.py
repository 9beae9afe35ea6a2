"""An et al., Fluctuation-based Adaptive Structured Pruning for Large Language Models (FLAP),
AAAI 2024, equation 5: how much an input channel fluctuates, times the norm of its weights.

Leaves out the compensation in the bias (equation 4): a pruner answers for one target, the weight.
"""

import torch

import tersely
from tersely.contracts import ObservesInputs


class Fluctuation(ObservesInputs):
    """The sample variance of each column's inputs times the squared norm of the column."""

    def observe_input(self, inputs: torch.Tensor, target: tersely.PruningTarget):
        found = {}
        for rows in tersely.input_rows(
            inputs, target, at_a_time=1 << 20
        ):  # (groups, rows, columns)
            part = {
                "count": torch.full((), float(rows.shape[1]), dtype=torch.float64),
                "sum": rows.double().sum(1),
                "squares": rows.double().square().sum(1),
            }
            found = {name: found.get(name, 0) + one for name, one in part.items()}
        return found

    def importance(self, target: tersely.PruningTarget) -> torch.Tensor:
        seen = target.observed
        mean = seen["sum"] / seen["count"]
        variance = (seen["squares"] - seen["count"] * mean.square()).clamp_min(0)
        variance = variance / (seen["count"] - 1).clamp_min(1)
        layout = tersely.matrix_layout(target)
        matrices = tersely.to_matrices(target.tensor.detach().double(), layout)
        norms = matrices.square().sum(1)  # over the rows: (groups, columns)
        scores = (variance.to(norms.device) * norms).unsqueeze(1).expand_as(matrices)
        return tersely.from_matrices(scores, layout, target.tensor.shape).float()


@tersely.hookimpl
def tersely_pruners():
    return [
        tersely.PrunerInfo(
            name="fluctuation",
            implementation="fluctuation:Fluctuation",
            summary="Fluctuation of an input channel times the norm of its weights.",
            paper="An et al., FLAP, AAAI 2024",
            target_kinds=("parameter",),
        )
    ]
