"""Small deterministic models, data and granularity values that contracts run on."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tersely.arithmetic.blocks import Blocks
from tersely.contracts.settings import PruningSetting
from tersely.contracts.target_plan import Origin, TargetPlan
from tersely.json_value import Json
from tersely.planning.targets.granularity import is_supported
from tersely.planning.targets.spelling import implementation
from tersely.registry.descriptors import PrunerInfo
from tersely.registry.registry import registry

DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
"""The dtypes of models; the last one overflows first."""


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


class NarrowNet(nn.Module):
    """A convolution of one filter, and a linear layer of one input."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 1, 5)
        self.linear = nn.Linear(1, 8)

    def forward(self, images: Tensor) -> Tensor:
        """Return shape (batch, 8) for images of shape (batch, 4, 5, 5)."""
        result: Tensor = self.linear(torch.relu(self.conv(images)).flatten(1))
        return result


def narrow_net() -> NarrowNet:
    """Return the same narrow model, with the same weights, at every call."""
    net = NarrowNet()
    _fill(net)
    return net


def contract_net(dtype: torch.dtype = torch.float32) -> ContractNet:
    """Return the same model, with the same weights, at every call.

    Args:
        dtype: the parameters' dtype.
    """
    net = ContractNet()
    _fill(net)
    return net.to(dtype)


def _fill(net: nn.Module) -> None:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator))


def other_layout(values: Tensor) -> Tensor:
    """Return the same values, with the first dimension last in memory.

    Args:
        values: any shape.
    """
    return values.transpose(0, -1).contiguous().transpose(0, -1)


def net_with_zeros() -> ContractNet:
    """Return a contract net with one filter and one whole linear weight of zeros."""
    net = contract_net()
    with torch.no_grad():
        net.conv.weight[0] = 0
        net.linear.weight.zero_()
    return net


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
    """Return a config value of every installed, working granularity that an algorithm supports.

    A granularity that itself fails is reported by its own contract, not by the algorithm's.

    Args:
        info: the algorithm's descriptor.
    """
    catalog = registry().granularities
    values: list[Json] = ["default"]
    for name in catalog.names():
        if is_supported(catalog.info(name), info):
            values += [value for value in example_values(name) if _works(value)]
    return values


def example_values(name: str) -> list[Json]:
    """Return config values that select a granularity: its examples, and its name if that suffices.

    Args:
        name: the granularity's name in the registry.
    """
    info = registry().granularities.info(name)
    if info.values is not None:
        return list(info.values.get("examples", []))
    values: list[Json] = [] if info.options.get("required") else [name]
    return [*values, *({name: dict(example)} for example in info.options.get("examples", []))]


def _works(value: Json) -> bool:
    setting = PruningSetting.of({"granularity": value})
    for shape in (tuple(each.shape) for each in contract_net().parameters()):
        target = TargetPlan(
            module="layer",
            target="weight",
            kind="parameter",
            method="pruning",
            algorithm="contract",
            setting=setting,
            origin=Origin("contract"),
            shape=shape,
            module_type="Linear",
        )
        try:
            found: object = implementation(value).blocks(shape, target)
        except ValueError:
            continue
        except Exception:  # foreign code
            return False
        if not isinstance(found, Blocks):
            return False
    return True
