"""Pruners that keep their contract, and one for every way to break it."""

import threading

import torch

from tersely import PlanError
from tersely.contracts import (
    Grows,
    Learns,
    MakesNewScores,
    ObservesCurvature,
    ObservesDenseGradients,
    ObservesGradients,
    ObservesOutputs,
    OrdersInputs,
    RegrowsFromZero,
    ScoresBlocks,
    ScoresModel,
)


class Good:
    def __init__(self, *, power=1.0):
        self.power = power

    def importance(self, target):
        return target.tensor.detach().abs().pow(self.power)


class Watching(ObservesOutputs):
    """Needs calibration."""

    def observe_output(self, outputs, target):
        return {"total": outputs.abs().sum()}

    def importance(self, target):
        return target.tensor.detach().abs() * target.observed["total"]


class Feeling(ObservesGradients):
    """Needs gradients."""

    def observe_gradient(self, gradient, target):
        return {"total": gradient.abs()}

    def importance(self, target):
        return target.observed["total"]


class Regrowing(Good, ObservesDenseGradients, RegrowsFromZero):
    """Drops and regrows."""

    def observe_gradient(self, gradient, target):
        return {"gradient": gradient.clone()}

    def importance(self, target):
        magnitude = super().importance(target)
        if target.mask is None:
            return magnitude
        gradient = target.observed["gradient"].abs()
        return torch.where(target.mask, magnitude, gradient)


class Flowing(ScoresModel):
    """Scores the whole model, and leaves it as it likes."""

    def score_model(self, model, targets):
        with torch.no_grad():
            for tensor in model.module.parameters():
                tensor.abs_()
        outputs = model.outputs(torch.ones_like(model.batches[0][:1]))
        torch.autograd.backward(outputs.sum())
        parameters = [model.parameter(target) for target in targets]
        return [(parameter.grad * parameter).detach() for parameter in parameters]


class Curved(Good, ObservesCurvature):
    """Needs second derivatives."""

    def observe_curvature(self, curvature, targets):
        generator = torch.Generator().manual_seed(curvature.step)
        signs = [
            torch.randn(one.shape, generator=generator).sign().to(one)
            for one in curvature.parameters
        ]
        return [
            {"diagonal": sign * one}
            for sign, one in zip(signs, curvature.times(signs), strict=True)
        ]

    def importance(self, target):
        return target.observed["diagonal"] * target.tensor.detach().square()


class Sorting(Good, OrdersInputs):
    """Puts inputs in another order."""

    def input_order(self, target):
        magnitude = target.tensor.detach().abs().float()
        others = [dim for dim in range(magnitude.ndim) if dim != target.plan.input_dim]
        return magnitude.sum(others).argsort(stable=True)


class Learning(Learns):
    """Needs training."""

    def start(self, target):
        return {"scale": torch.ones_like(target.tensor, dtype=torch.float32)}

    def masked(self, value, mask, learned):
        scaled = value * learned["scale"].to(value.dtype)
        return scaled if mask is None else scaled * mask

    def importance(self, target):
        return target.learned["scale"].detach().abs()


class Picky(Good):
    """Has nothing to say about some tensors unless they are cut as it likes best."""

    def importance(self, target):
        if target.plan.setting.granularity == "pairs" and target.tensor.shape[0] != 8:
            raise PlanError(f"{target.name}: write granularity: default")
        return super().importance(target)


class Growing(Learning, Grows):
    def factor(self, steps):
        return min(steps, 5) / 5


class Fading(Learning, Grows):
    """Masks less with every step."""

    def factor(self, steps):
        return max(10 - steps, 0) / 10


class Forgetful(Learning, ObservesGradients):
    """Keeps what it knows to itself, where no session finds it."""

    def __init__(self):
        self.seen = {}

    def observe_gradient(self, gradient, target):
        self.seen[target.name] = self.seen.get(target.name, 0) + gradient.abs()
        return {"nothing": torch.zeros(())}

    def importance(self, target):
        return self.seen[target.name]


class Littering(Good):
    def importance(self, target):
        target.module.register_buffer("litter", torch.zeros(1), persistent=False)
        return super().importance(target)


class WrongShape(Good):
    def importance(self, target):
        return torch.ones(3)


class NotFinite(Good):
    def importance(self, target):
        return super().importance(target) / 0


class Integer(Good):
    def importance(self, target):
        return super().importance(target).long()


class Listed(Good):
    def importance(self, target):
        return super().importance(target).tolist()


class Random(Good):
    def importance(self, target):
        return torch.rand_like(target.tensor)


class Counting(Good):
    def __init__(self):
        super().__init__()
        self.calls = 0

    def importance(self, target):
        self.calls += 1
        return super().importance(target) + self.calls


class Writing(Good):
    def importance(self, target):
        return target.tensor.mul_(2).abs()


class Touching(Good):
    def importance(self, target):
        return target.tensor.mul_(1).abs()


class Giving(Good, MakesNewScores):
    pass


class Stacked(ScoresBlocks):
    def block_scores(self, tensor, blocks):
        return tensor.abs()


class Keeping(Giving):
    def __init__(self):
        super().__init__()
        self.known = {}

    def importance(self, target):
        key = target.name, target.tensor.dtype, target.tensor._version
        return self.known.setdefault(key, super().importance(target))


class Freezing(Good):
    def importance(self, target):
        target.module.requires_grad_(requires_grad=False)
        return super().importance(target)


class ChannelsOnly(Good):
    def importance(self, target):
        others = [dim for dim in range(target.tensor.ndim) if dim != target.plan.output_dim]
        return super().importance(target).sum(others, keepdim=True)


class MadeOnce(Good):
    made = 0

    def __init__(self):
        super().__init__()
        MadeOnce.made += 1
        if MadeOnce.made > 1:
            raise RuntimeError("it was made before")


class Locking(Good):
    def importance(self, target):
        target.module.lock = threading.Lock()
        return super().importance(target)


class Breaking(Good):
    def importance(self, target):
        target.module.register_forward_hook(lambda *_: torch._dynamo.graph_break())
        return super().importance(target)


class Clinging(Good):
    def importance(self, target):
        plain = torch.nn.Linear
        target.module.register_forward_hook(
            lambda module, _, output: output if type(module) is plain else output * 2
        )
        return super().importance(target)
