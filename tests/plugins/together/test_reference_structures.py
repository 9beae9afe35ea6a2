"""Each structure of another framework's tests loses half of its channels, grouped from the file."""

import ast
import copy
import functools
from importlib import util
from pathlib import Path

import pytest
import torch
from messages.shrinking import OTHER_DIMENSION
from torch import nn
from torch.nn import functional

import tersely

HERE = Path(__file__)


def beside(name):
    place = util.spec_from_file_location(name, HERE.with_name(f"{name}.py"))
    module = util.module_from_spec(place)
    place.loader.exec_module(module)
    return module


structures, residuals = beside("reference_structures"), beside("reference_residuals")

IMAGE = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))

CASES = {
    "every operator": (structures.Chain, ["Conv2d"], []),
    "an activation": (lambda: structures.LeNet(nn.ReLU6()), ["Conv2d"], []),
    "a decorated activation": (lambda: structures.LeNet(structures.Once()), ["Conv2d"], []),
    "one decorated twice": (lambda: structures.LeNet(structures.Twice()), ["Conv2d"], []),
    "one decorated three times": (
        lambda: structures.LeNet(structures.Thrice()),
        ["Conv2d"],
        [],
    ),
    "a grouped one in a sum": (residuals.Grouped, ["Conv2d", "Linear"], ["fc2"]),
    "that below a module": (residuals.Wrapped, ["Conv2d", "Linear"], ["model.fc2"]),
    "resnet18": (residuals.ResNet18, ["Conv2d"], []),
    "yolof": (residuals.Dilated, ["Conv2d"], ["score", "object"]),
    "put together along the batch": (structures.Beside, ["Conv2d"], ["last"]),
    "channels that are summed": (structures.Summed, ["Conv2d"], []),
    "vgg": (structures.Vgg, ["Conv2d", "Linear"], ["classifier.3"]),
    "mnasnet": (structures.MnasNet, ["Conv2d"], []),
    "hourglass": (structures.Hourglass, ["Conv2d"], ["out"]),
    "fcos": (structures.Fcos, ["Conv2d"], ["classes", "boxes", "laterals.0", "laterals.1"]),
    "nas cell": (structures.NasCell, ["Conv2d"], ["last", "gate"]),
    "pyramid vision transformer": (
        structures.Pyramid,
        ["Linear"],
        ["last", "query", "both", "out", "down"],
    ),
    "yolox": (structures.Yolox, ["Conv2d"], ["classes", "box"]),
    "deformed": (structures.Deformed, ["Conv2d"], ["last", "offset"]),
}
"""Structure -> how to build it, which layers lose channels, and which of them do not."""


WHOLE = {
    structures.Fcos: [
        {"op_names": ["tower.0"], "granularity": [2, -1, -1, -1], "sparse_ratio": 0.5},
    ]
}
"""Structure -> what loses whole groups of a group norm."""


def pruned(model, example, op_types, excluded):
    whole = WHOLE.get(type(model), [])
    rest = [*excluded, *(name for entry in whole for name in entry["op_names"])]
    config = [{"op_types": op_types, "sparse_ratio": 0.5, "exclude_op_names": rest}]
    norms = [
        {
            "op_names": [name],
            "target_names": ["weight", "bias"],
            "target_settings": {
                one: {"align": {"module_name": source, "target_name": "weight", "dims": [0]}}
                for one in ("weight", "bias")
            },
        }
        for name, source in followed(model, excluded)
    ]
    config = tersely.auto_dependency_groups(model, config, example)
    return tersely.prune(
        model, [*config, *norms, *whole], algorithm="l1_norm", example_inputs=example
    )


def followed(model, excluded):
    """Batch norms, and the convolution before each."""
    modules = dict(model.named_modules())
    for name, module in modules.items():
        head, _, last = name.rpartition(".")
        before = f"{head}.{int(last) - 1}" if last.isdigit() else None
        if isinstance(module, nn.BatchNorm2d) and isinstance(modules.get(before), nn.Conv2d):
            yield name, before


def lived_in(model):
    """Give batch norms statistics and parameters as training leaves them."""
    generator = torch.Generator().manual_seed(1)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor, spread, least in (
                (module.running_mean, 0.6, -0.3),
                (module.running_var, 1.0, 0.5),
                (module.weight.data, 1.0, 0.5),
                (module.bias.data, 0.6, -0.3),
            ):
                tensor.copy_(torch.rand(tensor.shape, generator=generator) * spread + least)
    return model.double().eval()


def outputs(model, example):
    torch.manual_seed(2)  # one of them draws random numbers
    return model(example)


@pytest.mark.parametrize("name", CASES)
def test_a_structure_loses_half_of_its_channels_and_computes_the_same(name):
    build, op_types, excluded = CASES[name]
    torch.manual_seed(0)
    model = lived_in(build())
    example = (model.example() if hasattr(model, "example") else IMAGE).double()
    session = pruned(model, example, op_types, excluded)
    masked = copy.deepcopy(model)
    before = sum(one.numel() for one in model.parameters())

    shrunk = session.shrink(example)

    assert shrunk.stays == ()
    assert sum(one.numel() for one in model.parameters()) < 0.85 * before
    expected = outputs(masked, example)
    torch.testing.assert_close(outputs(model, example), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    ("mix", "place"),
    [(nn.Softmax(dim=1), "wide"), (functools.partial(functional.softmax, dim=1), "the model")],
    ids=["module", "function"],
)
def test_what_a_softmax_mixes_is_refused_by_name(mix, place):
    torch.manual_seed(0)
    model = structures.LeNet(nn.ReLU6(), mix).eval()
    session = tersely.prune(
        model, [{"op_names": ["fc1"], "sparse_ratio": 0.5}], algorithm="l1_norm"
    )
    [stay] = session.shrink(model.example()).stays
    assert stay.reason == f"softmax mixes them (softmax of {place})"
    assert stay.hint == OTHER_DIMENSION


PRUNERS = {
    "level": {},
    "l2_norm": {},
    "fpgm": {"schedule": {"name": "linear", "every": 1, "times": 4}},
    "slim": {"schedule": {"name": "agp", "every": 1, "times": 4}},
    "taylor": {"schedule": {"name": "linear", "every": 1, "times": 4}},
    "movement": {"options": {"warmup_steps": 1, "cooldown_begin_step": 4}},
}


def pruned_in_training(algorithm, **also):
    torch.manual_seed(0)
    model = residuals.Grouped().double()
    example = model.example().double()
    config = [
        {"op_names": [name], "sparse_ratio": 0.75, "granularity": "out_channel", **also}
        for name in ("conv1", "conv2", "conv3", "fc1")
    ]
    config = tersely.auto_dependency_groups(model, config, example)
    stage = {"algorithm": algorithm, "config_list": config, **PRUNERS[algorithm]}
    session = tersely.attach(model, {"pruning": stage})
    session.compress()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    for _ in range(6):
        optimizer.zero_grad()
        loss = functional.cross_entropy(model(example), torch.arange(3))
        session.total_loss(loss).backward()
        optimizer.step()
        session.step()
    model.eval()
    return model, session, example


@pytest.mark.parametrize("algorithm", PRUNERS)
def test_what_a_pruner_masks_in_training_goes_and_the_rest_computes_the_same(algorithm):
    model, session, example = pruned_in_training(algorithm)
    expected = model(example)
    session.shrink(example)
    torch.testing.assert_close(model(example), expected, rtol=1e-10, atol=1e-10)
    rows = [getattr(model, name).weight.shape[0] for name in ("conv1", "conv2", "conv3", "fc1")]
    assert rows == [4, 8, 8, 5]


NETWORKS = "core/shrinking/networks.py"
GALLERY = "core/shrinking/gallery"
HELD_BY = {"lightning": "that below a module", "pytorch": "a grouped one in a sum"}
SOFTMAX = f"plugins/together/{HERE.name}::test_what_a_softmax_mixes_is_refused_by_name"

REMOVING = {
    **{
        f"test_pruner.py::test_norm_pruner[{pruner}-{trainer}]": case
        for pruner in ("level", "l1", "l2", "fpgm")
        for trainer, case in HELD_BY.items()
    },
    **{
        f"test_pruner.py::test_slim_taylor_pruner[{pruner}-{trainer}]": case
        for pruner in ("slim", "taylor")
        for trainer, case in HELD_BY.items()
    },
    **{f"test_pruner.py::test_mvp_pruner[{trainer}]": case for trainer, case in HELD_BY.items()},
    **{
        f"test_pruner.py::test_scheduled_pruner[{pruner}-{schedule}-{trainer}]": case
        for pruner in ("level", "l1", "l2", "fpgm", "slim", "taylor")
        for schedule in ("agp", "linear")
        for trainer, case in HELD_BY.items()
    },
    "test_auto_conv.py::test_l1norm_pruner": "every operator",
    "test_speedup_init_mask.py::test_with_annotation0": "an activation",
    "test_speedup_init_mask.py::test_with_annotation1": "a decorated activation",
    "test_speedup_init_mask.py::test_with_annotation2": "one decorated twice",
    "test_speedup_init_mask.py::test_with_annotation3": "one decorated three times",
    "test_speedup_softmax.py::test_function": SOFTMAX,
    "test_speedup_softmax.py::test_module": SOFTMAX,
    **{
        f"test_speedup_torchvision.py::test_pruner_speedup[{name}]": case
        for name, case in {
            "alexnet": f"{NETWORKS}::AlexNet",
            "densenet121": f"{GALLERY}/vision.py::DenseNet",
            "efficientnet_b0": f"{NETWORKS}::efficientnet",
            "inception_v3": f"{GALLERY}/vision.py::Inception",
            "mnasnet0_5": "mnasnet",
            "mobilenet_v2": f"{NETWORKS}::mobilenet_v2",
            "resnet18": "resnet18",
            "resnext50_32x4d": f"{NETWORKS}::ResNet",
            "squeezenet1_0": f"{NETWORKS}::SqueezeNet",
            "vgg11": "vgg",
            "wide_resnet50_2": f"{NETWORKS}::ResNet",
        }.items()
    },
}
"""Each test of that framework that removes channels -> a case of ours, or where one lies."""

DETECTORS = {
    f"{GALLERY}/vision.py::RetinaNet": "foveabox free_anchor fsaf ghm retinanet rpn",
    f"{NETWORKS}::Levels": "ssd",
    f"{NETWORKS}::Yolo": "yolo",
    "deformed": "centernet reppoints",
    "fcos": "atss autoassign fcos gfl paa",
    "hourglass": "centripetalnet cornernet",
    "nas cell": "dyhead nas_fpn",
    "pyramid vision transformer": "pvt",
    "yolof": "yolof",
    "yolox": "yolox",
}
"""A case of ours -> the detectors that the framework's tests only trace, by their folders."""

GROUPING = {
    "PatternA": "put together along the batch",
    "PatternB": "core/dependencies/test_ties.py::test_that_holds_for_unequal_widths",
    "PatternC": "channels that are summed",
}
"""The networks in which its tests only look for groups."""


def test_every_structure_whose_channels_the_other_framework_removes_has_a_case():
    cases = {*REMOVING.values(), *DETECTORS, *GROUPING.values()}
    for place in cases - set(CASES):
        path, _, name = place.partition("::")
        tree = ast.parse((HERE.parents[2] / path).read_text(encoding="utf-8"))
        assert name in {getattr(node, "name", None) for node in tree.body}, place


def test_the_other_framework_has_56_such_tests_38_of_them_on_one_structure():
    assert len(REMOVING) == 56
    assert sum(case in HELD_BY.values() for case in REMOVING.values()) == 38
    assert sum(len(names.split()) for names in DETECTORS.values()) == 22
