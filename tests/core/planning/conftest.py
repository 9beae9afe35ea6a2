"""A registry of known content and a short way to plan, so that no installed plugin matters here."""

import sys
import warnings
from types import ModuleType

import pytest
from torch import nn

import tersely
from tersely.planning.resolve import PlanWarning
from tersely.registry import registry as registry_module
from tersely.registry.registry import load_registry

PLACE = "stand_ins_of_planning_tests"


class Rows:
    def blocks(self, shape, target):
        return tersely.Blocks((1, *(-1,) * (len(shape) - 1)))


class Sizes:
    def __init__(self, *, value):
        self.value = value

    def blocks(self, shape, target):
        return tersely.Blocks((1,) * (len(shape) - len(self.value)) + tuple(self.value))


class Neighbours:
    def __init__(self, *, value):
        self.keep, self.run = (int(part) for part in value.split(":"))

    def blocks(self, shape, target):
        size = (1,) * len(shape)
        return tersely.Blocks(size, scope=(1, self.run, *size[2:]), keep=self.keep)


def described(kind, name, implementation="Nothing", **more):
    return kind(name=name, implementation=f"{PLACE}:{implementation}", **more)


def value_option(schema):
    return {
        "type": "object",
        "properties": {"value": schema},
        "required": ["value"],
        "additionalProperties": False,
    }


SIZES = {"type": "array", "items": {"type": "integer"}, "minItems": 1}
RUNS = {"type": "string", "pattern": "^[0-9]+:[0-9]+$"}


class Face:
    """One algorithm of each sort that planning tells apart."""

    @tersely.hookimpl
    def tersely_pruners(self):
        return [
            described(tersely.PrunerInfo, "element"),
            described(tersely.PrunerInfo, "channel", default_granularity="output_channel"),
            described(
                tersely.PrunerInfo,
                "choosy",
                target_kinds=("parameter", "buffer"),
                granularities=("rows", "sizes"),
                default_granularity="rows",
            ),
        ]

    @tersely.hookimpl
    def tersely_quantizers(self):
        return [described(tersely.QuantizerInfo, "whole")]

    @tersely.hookimpl
    def tersely_granularities(self):
        info = tersely.GranularityInfo
        return [
            described(info, "rows", "Rows", target_kinds=("parameter", "buffer")),
            described(info, "sizes", "Sizes", values=SIZES, options=value_option(SIZES)),
            described(
                info,
                "neighbours",
                "Neighbours",
                values=RUNS,
                options=value_option(RUNS),
            ),
        ]

    @tersely.hookimpl
    def tersely_distillation_losses(self):
        return [described(tersely.LossInfo, "mse"), described(tersely.LossInfo, "kl")]


@pytest.fixture(autouse=True)
def registry(monkeypatch):
    """The process-wide registry with the core's own settings, the face above and nothing else."""
    module = ModuleType(PLACE)
    for implementation in (Rows, Sizes, Neighbours):
        setattr(module, implementation.__name__, implementation)
    monkeypatch.setitem(sys.modules, PLACE, module)
    registry = load_registry(environ={}, path=[])
    registry.register(Face(), name="stand-ins")
    monkeypatch.setattr(registry_module, "_process_registry", registry)
    return registry


@pytest.fixture
def register(registry):
    """Register further things: ``register(tersely_pruners=[...])``."""

    def register(name="more", implementations=(), **hooks):
        for implementation in implementations:
            setattr(sys.modules[PLACE], implementation.__name__, implementation)
        functions = {
            hook: tersely.hookimpl(lambda self, found=found: found) for hook, found in hooks.items()
        }
        face = type("More", (), functions)()
        for hook, function in functions.items():
            function.__name__ = hook
        return registry.register(face, name=name)

    return register


@pytest.fixture
def recipe_of():
    def recipe_of(*entries, method="pruning", algorithm=None, **top):
        stage = {"config_list": list(entries)}
        if method != "distillation":
            stage["algorithm"] = (
                algorithm or {"pruning": "element", "quantization": "whole"}[method]
            )
        return {method: stage, **top}

    return recipe_of


@pytest.fixture
def make(recipe_of):
    """Plan one stage of entries, without its warnings."""

    def make(model, *entries, teacher=None, **stage):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PlanWarning)
            return tersely.plan(model, recipe_of(*entries, **stage), teacher=teacher)

    return make


@pytest.fixture
def problems(make):
    """The problems of a plan that cannot be made."""

    def problems(model, *entries, **stage):
        with pytest.raises(tersely.PlanError) as caught:
            make(model, *entries, **stage)
        return list(caught.value.problems)

    return problems


@pytest.fixture
def problem(problems):
    """The one problem of a target of a single module."""

    def problem(module, *, target="weight", algorithm=None, **keys):
        entry = {"op_names": ["0"], "target_names": [target], "sparse_ratio": 0.5, **keys}
        (found,) = problems(nn.Sequential(module), entry, algorithm=algorithm)
        return found

    return problem


class Net(nn.Module):
    """Two layers whose names begin alike, a convolution and its normalisation."""

    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(4, 6)
        self.fc10 = nn.Linear(6, 4, bias=False)
        self.conv = nn.Conv2d(2, 4, 3)
        self.bn = nn.BatchNorm2d(4)
        self.act = nn.ReLU()

    def forward(self, x):
        return self.fc10(self.act(self.fc1(x)))


@pytest.fixture
def net():
    return Net()


@pytest.fixture
def linears():
    """A sequence of equal linear layers."""

    def linears(count, features=4, bias=False):
        return nn.Sequential(*(nn.Linear(features, features, bias=bias) for _ in range(count)))

    return linears
