"""Small deterministic models, data and granularity values that contracts run on."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tersely.json_value import Json
from tersely.registry.descriptors import PrunerInfo
from tersely.registry.registry import registry

DTYPES = (torch.float32, torch.float64, torch.bfloat16)


class ContractNet(nn.Module):
    """A convolution, a grouped convolution, a transposed one and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 8, 4)
        self.grouped = nn.Conv2d(8, 8, 1, groups=2)
        self.transposed = nn.ConvTranspose2d(8, 4, 1)
        self.linear = nn.Linear(16, 8)

    def forward(self, images: Tensor) -> Tensor:
        """Return shape (batch, 8) for images of shape (batch, 4, 5, 5)."""
        features = self.transposed(torch.relu(self.grouped(torch.relu(self.conv(images)))))
        result: Tensor = self.linear(features.flatten(1))
        return result


def contract_net(dtype: torch.dtype = torch.float32) -> ContractNet:
    """Return the same model, with the same weights, at every call.

    Args:
        dtype: the parameters' dtype.
    """
    net = ContractNet()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return net.to(dtype)


def contract_batches() -> list[Tensor]:
    """Return two batches for `ContractNet`, the same at every call."""
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(3, 4, 5, 5, generator=generator) for _ in range(2)]


def with_weights_of(model: nn.Module) -> ContractNet:
    """Return a new contract net with the parameters of another one.

    Args:
        model: a contract net, instrumented or not.
    """
    net = contract_net(next(model.parameters()).dtype)
    values = dict(model.named_parameters())
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            parameter.copy_(values[name])
    return net


def has_own_classes(model: nn.Module) -> bool:
    """Tell whether a contract net has its own classes and no buffers.

    Args:
        model: the net.
    """
    classes = [type(module) for module in contract_net().modules()]
    return [type(module) for module in model.modules()] == classes and not list(model.buffers())


def granularity_values(info: PrunerInfo) -> list[Json]:
    """Return a value of every installed granularity that an algorithm supports.

    Args:
        info: the algorithm's descriptor.
    """
    catalog = registry().granularities
    values: list[Json] = ["default"]
    for name in catalog.names():
        if info.granularities is None or catalog.info(name).name in info.granularities:
            values += example_values(name)
    return values


def example_values(name: str) -> list[Json]:
    """Return config values that select a granularity: its examples, or its name alone.

    Args:
        name: the granularity's name in the registry.
    """
    values = registry().granularities.info(name).values
    if values is None:
        return [name]
    examples: list[Json] = list(values.get("examples", []))
    return examples
