"""Yang et al., Wanda++: Pruning Large Language Models via Regional Gradients, ACL Findings 2025,
equation 5: Wanda's score and the gradient of the norm of the region's output.

Departs from the paper in that a region is the child module of the model that holds the target,
and that the regional optimizer is left out.
"""

import torch

import tersely
from tersely.contracts import ScoresModel


class Regional(ScoresModel):
    """Scores ``|W| * (alpha * G + ||X||)``.

    Args:
        alpha: how much the regional gradient counts.
    """

    def __init__(self, *, alpha: float = 100.0) -> None:
        self.alpha = alpha

    def score_model(self, model, targets):
        names = {id(module): name for name, module in model.module.named_children()}
        regions = {
            id(one): names[id(child)]
            for child in model.module.children()
            for one in child.modules()
        }
        parameters = [model.parameter(target) for target in targets]
        squares = [torch.zeros_like(one).double() for one in parameters]
        inputs: dict[int, torch.Tensor] = {}
        outputs: dict[str, torch.Tensor] = {}
        for target in targets:
            target.module.register_forward_hook(_keeps_norms(target, inputs))
        for name, child in model.module.named_children():
            child.register_forward_hook(_keeps_output(name, outputs))
        count = 0
        for batch in model.batches:
            model.outputs(batch)
            for name, output in outputs.items():
                own = [i for i, one in enumerate(targets) if regions.get(id(one.module)) == name]
                if not own or not output.requires_grad:
                    continue
                found = torch.autograd.grad(
                    output.float().norm(),
                    [parameters[i] for i in own],
                    retain_graph=True,
                    allow_unused=True,
                )
                for i, gradient in zip(own, found, strict=True):
                    if gradient is not None:
                        squares[i] += gradient.double().square()
            count += 1
        return [
            self._score(target, square / max(count, 1), inputs.get(id(target.module)))
            for target, square in zip(targets, squares, strict=True)
        ]

    def _score(self, target, square, norms):
        layout = tersely.matrix_layout(target)
        weight = tersely.to_matrices(target.tensor.detach().abs().double(), layout)
        gradient = tersely.to_matrices(square.sqrt(), layout)
        lengths = 0 if norms is None else norms.sqrt().unsqueeze(1)
        scores = weight * (self.alpha * gradient + lengths)
        return tersely.from_matrices(scores, layout, target.tensor.shape).float()


def _keeps_norms(target, inputs):
    def hook(module, arguments, output):
        for rows in tersely.input_rows(arguments[0].detach(), target, at_a_time=1 << 20):
            one = rows.double().square().sum(1)
            inputs[id(module)] = inputs.get(id(module), 0) + one

    return hook


def _keeps_output(name, outputs):
    def hook(module, arguments, output):
        outputs[name] = output

    return hook


@tersely.hookimpl
def tersely_pruners():
    return [
        tersely.PrunerInfo(
            name="regional",
            implementation="regional:Regional",
            summary="Wanda's score and the gradient of the norm of the region's output.",
            paper="Yang et al., Wanda++, ACL Findings 2025",
            target_kinds=("parameter",),
            default_granularity="row",
            options={
                "type": "object",
                "properties": {"alpha": {"type": "number", "minimum": 0, "default": 100.0}},
                "additionalProperties": False,
                "examples": [{"alpha": 1.0}],
            },
        )
    ]
