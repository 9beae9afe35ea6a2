"""The ways in which people average a model while it trains."""

import copy

import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

DECAY = 0.5


class WithTorch:
    """torch's AveragedModel."""

    use_buffers = False

    def __init__(self, model):
        self.averaged = AveragedModel(
            model, multi_avg_fn=get_ema_multi_avg_fn(DECAY), use_buffers=self.use_buffers
        )
        self.model = self.averaged.module

    def update(self, model):
        self.averaged.update_parameters(model)


class WithBuffers(WithTorch):
    """torch's AveragedModel, buffers averaged as well."""

    use_buffers = True


class ByName:
    """Every floating-point entry of a state dict by its name, as YOLO does."""

    def __init__(self, model):
        self.model = copy.deepcopy(model)

    @torch.no_grad()
    def update(self, model):
        now = model.state_dict()
        for name, value in self.model.state_dict().items():
            if value.dtype.is_floating_point:
                value.mul_(DECAY).add_(now[name], alpha=1 - DECAY)


class InOrder(ByName):
    """Every entry of a state dict, the first with the first, as timm does."""

    @torch.no_grad()
    def update(self, model):
        pairs = zip(self.model.state_dict().values(), model.state_dict().values(), strict=True)
        for mine, other in pairs:
            mine.copy_(DECAY * mine + (1 - DECAY) * other)


def train(model, session, average=None, *, steps=6):
    """Train on normal numbers, and average after each step."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    model.train()
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.randn(32, 8)).square().mean().backward()
        optimizer.step()
        session.step()
        if average is not None:
            average.update(model)
