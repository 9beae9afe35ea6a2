"""Quantizers of the suite's own, because the core is tested without any plugin."""

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from types import ModuleType

import pytest
import torch
from torch import nn

import tersely
from tersely.contracts import (
    ClipsGradients,
    FollowsTraining,
    LearnsScales,
    Optimizes,
    Simulates,
    SolvesWeights,
)

WEIGHTS = [{"op_types": ["Linear"], "target_names": ["weight"]}]
EVERYTHING = [{"op_types": ["Linear"], "target_names": ["_input_", "weight", "_output_"]}]


class ToyRange:
    """Maps the observed range onto the integers; ``shrink`` makes its scales smaller."""

    def __init__(self, *, shrink=1.0):
        self.shrink = shrink

    def choose(self, low, high, target):
        qparams = tersely.choose_qparams(low, high, target)
        return qparams.evolve(scale=qparams.scale * self.shrink)


class ToyPlain:
    """Chooses as the specification does, so small weights that are alike are taken together."""

    choose = staticmethod(tersely.choose_qparams)


class ToyFollow(ToyRange, FollowsTraining, ClipsGradients):
    """Follows training; half of the old range stays."""

    def __init__(self, *, start=0, freeze=None):
        super().__init__()
        self.decay, self.start_step, self.freeze_step = 0.5, start, freeze


class ToyPlainFollow(ToyPlain, FollowsTraining):
    """Follows training from scales that small weights get together."""

    def __init__(self):
        self.decay, self.start_step, self.freeze_step = 0.5, 0, None


def spread(scale, qparams, value):
    """One scale for each element, or what broadcasts to that."""
    if qparams.block_size is None:
        return scale
    return tersely.expand_blocks(scale, qparams.block_size, value.shape)


class ToyLearn(ToyRange, LearnsScales, Optimizes):
    """Learns the scale; its gradient is that of steps times scale."""

    def start(self, qparams, target):
        return {"scale": qparams.scale.clone()}

    def meaning(self, qparams, learned):
        return qparams.evolve(scale=learned["scale"].detach().clamp_min(1e-6))

    def learned_values(self, value, qparams, learned, target):
        steps = torch.round(value.detach() / spread(qparams.scale, qparams, value))
        return steps * spread(learned["scale"], qparams, value)

    def optimizer(self, tensors):
        return torch.optim.SGD(tensors, lr=0.5)


class ToySigns(ToyRange, Simulates):
    """Simulates: every value becomes its sign times the scale."""

    def simulate(self, value, qparams, target):
        return torch.sign(value) * spread(qparams.scale, qparams, value)

    def integers(self, value, qparams, target):
        return torch.sign(value).to(torch.int8), qparams.evolve(quant_min=-1, quant_max=1)


class ToyFails(ToyRange):
    """Fails at the targets whose name holds ``at``, unless ``is_mended``."""

    is_mended = False

    def __init__(self, *, at="1.weight"):
        super().__init__()
        self.at = at

    def choose(self, low, high, target):
        if self.at in target.name and not ToyFails.is_mended:
            raise RuntimeError("no idea")
        return super().choose(low, high, target)


class ToyShift(ToyRange, SolvesWeights):
    """Changes weights: adds one step to each, so that a journal has something to undo."""

    def solve(self, target):
        low, high = target.tensor.aminmax()
        qparams = self.choose(low, high, target)
        return tersely.QuantizedWeight(target.tensor + qparams.scale, qparams)


TOYS = {
    "toy_range": ToyRange,
    "toy_plain": ToyPlain,
    "toy_follow": ToyFollow,
    "toy_plain_follow": ToyPlainFollow,
    "toy_learn": ToyLearn,
    "toy_signs": ToySigns,
    "toy_fails": ToyFails,
    "toy_shift": ToyShift,
}


class Face:
    """Makes the toys known."""

    @tersely.hookimpl
    def tersely_quantizers(self):
        return [
            tersely.QuantizerInfo(
                name=name + suffix,
                implementation=f"tersely_quantizers:{cls.__name__}",
                options={"type": "object"},
                default_granularity=granularity,
            )
            for name, cls in TOYS.items()
            for suffix, granularity in (("", "tensor"), ("_channels", "output_channel"))
        ]

    @tersely.hookimpl
    def tersely_granularities(self):
        return [
            tersely.GranularityInfo(name=name, implementation=f"tersely_quantizers:{cls.__name__}")
            for name, cls in GRANULARITIES.items()
        ]


class Rows:
    """Each row of a parameter has a scale."""

    def blocks(self, shape, target):
        return tersely.Blocks((1, *(-1,) * (len(shape) - 1)))


class Elements:
    """Each element of a parameter has a scale."""

    def blocks(self, shape, target):
        return tersely.Blocks((1,) * len(shape))


class Pairs:
    """Two neighbours along the last dimension share a scale."""

    def blocks(self, shape, target):
        is_activation = target.kind in ("input", "output")
        rest = (-1,) * (len(shape) - 1) if is_activation else (1,) * (len(shape) - 1)
        return tersely.Blocks((*rest, 2))


GRANULARITIES = {"toy_pairs": Pairs, "toy_rows": Rows, "toy_elements": Elements}


@pytest.fixture(autouse=True)
def _toy_quantizers(toy_pruners) -> Iterator[None]:
    module = ModuleType("tersely_quantizers")
    for cls in (*TOYS.values(), *GRANULARITIES.values()):
        setattr(module, cls.__name__, cls)
    sys.modules["tersely_quantizers"] = module
    name = tersely.registry().register(Face(), name="tersely-quantizers")
    ToyFails.is_mended = False
    yield
    tersely.registry().unregister(name)
    del sys.modules["tersely_quantizers"]


@pytest.fixture
def provide_quantizers(provide) -> Callable[..., AbstractContextManager[None]]:
    """Provide affine quantizers inside of a block: ``with provide_quantizers(name=Class)``."""

    def provide_quantizers(**classes: type) -> AbstractContextManager[None]:
        infos = (
            tersely.QuantizerInfo(
                name=name,
                implementation=f"quantizers_of_a_file:{name}",
                options={"type": "object"},
                default_scheme="affine",
            )
            for name in classes
        )
        return provide("quantizers_of_a_file", *infos, **classes)

    return provide_quantizers


@pytest.fixture
def mend() -> Callable[[], None]:
    """Let ``toy_fails`` succeed from now on."""

    def mend():
        ToyFails.is_mended = True

    return mend


@pytest.fixture
def attach() -> Callable[..., tersely.Session]:
    """Attach a quantizer: ``attach(model, "toy_range", config_list, options...)``."""

    def attach(model, algorithm, config_list=None, **options):
        stage = {"algorithm": algorithm, "config_list": config_list or WEIGHTS, "options": options}
        return tersely.attach(model, {"quantization": stage})

    return attach


@pytest.fixture
def everything() -> list[dict[str, object]]:
    """A config list: inputs, weights and outputs of linear layers."""
    return EVERYTHING


@pytest.fixture
def two() -> nn.Sequential:
    """Two linear layers whose weights, in steps of int8, are whole: scales 0.01 and 0.1."""
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1.27, 0.0], [0.014, -0.5]]))
        model[1].weight.copy_(torch.tensor([[12.7, 0.0], [0.14, -5.0]]))
        for layer in model:
            layer.bias.copy_(torch.tensor([0.25, -0.5]))
    return model
