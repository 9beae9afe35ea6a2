"""A pruner that keeps its contract, and one for every way to break it."""

import threading

import torch


class Good:
    def __init__(self, *, power=1.0):
        self.power = power

    def importance(self, target):
        return target.tensor.detach().abs().pow(self.power)


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
