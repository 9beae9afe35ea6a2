"""Each structure of another framework's tests loses half of its channels, grouped from the file."""

import copy
from importlib import util
from pathlib import Path

import pytest
import torch
from torch import nn

import tersely

_PLACE = util.spec_from_file_location(
    "structures", Path(__file__).with_name("reference_structures.py")
)
structures = util.module_from_spec(_PLACE)
_PLACE.loader.exec_module(structures)

IMAGE = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))

CASES = {
    "every operator": (structures.Chain, ["Conv2d"], []),
    "an activation": (lambda: structures.LeNet(nn.ReLU6()), ["Conv2d"], []),
    "a decorated activation": (lambda: structures.LeNet(structures.Once()), ["Conv2d"], []),
    "one decorated twice": (lambda: structures.LeNet(structures.Twice()), ["Conv2d"], []),
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


@pytest.mark.parametrize("name", CASES)
def test_a_structure_loses_half_of_its_channels_and_computes_the_same(name):
    build, op_types, excluded = CASES[name]
    torch.manual_seed(0)
    model = build().eval()
    example = model.example() if hasattr(model, "example") else IMAGE
    session = pruned(model, example, op_types, excluded)
    masked = copy.deepcopy(model).double()
    before = sum(one.numel() for one in model.parameters())

    shrunk = session.shrink(example)

    assert shrunk.stays == ()
    assert sum(one.numel() for one in model.parameters()) < 0.85 * before
    if name != "every operator":  # which draws random numbers
        small = copy.deepcopy(model).double()
        torch.testing.assert_close(
            small(example.double()), masked(example.double()), rtol=1e-6, atol=1e-6
        )


def test_what_a_softmax_mixes_is_refused_by_name():
    torch.manual_seed(0)
    model = structures.LeNet(nn.ReLU6(), nn.Softmax(dim=1)).eval()
    session = tersely.prune(
        model, [{"op_names": ["fc1"], "sparse_ratio": 0.5}], algorithm="l1_norm"
    )
    [stay] = session.shrink(model.example()).stays
    assert stay.reason == "softmax mixes them (softmax of wide)"
    assert (
        stay.hint == "mask what lies along another dimension, or leave the layer out of the config"
    )
