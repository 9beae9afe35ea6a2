"""Shrinking beside torch-pruning: as many parameters are left of half of the channels."""

import copy

import pytest
import torch
from torch import nn

import tersely

pytestmark = [
    pytest.mark.benchmark,
    # torch-pruning and torch's own export use what torch deprecates.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]


def following(model):
    """Entries that mask each batch norm with the convolution before it."""
    last = ""
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d):
            last = name
        elif isinstance(module, nn.BatchNorm2d):
            align = {"module_name": last, "target_name": "weight", "dims": [0]}
            yield {
                "op_names": [name],
                "target_names": ["weight", "bias"],
                "target_settings": {"weight": {"align": align}, "bias": {"align": align}},
            }


def test_half_of_resnet_18_is_as_small_as_with_torch_pruning(resnet):
    torch_pruning = pytest.importorskip("torch_pruning")
    model, image = resnet.resnet18().eval(), torch.randn(1, 3, 64, 64)
    peer = copy.deepcopy(model)
    torch_pruning.pruner.MagnitudePruner(
        peer,
        image,
        importance=torch_pruning.importance.MagnitudeImportance(p=1),
        pruning_ratio=0.5,
        ignored_layers=[one for one in peer.modules() if isinstance(one, nn.Linear)],
    ).step()
    given = [{"op_types": ["Conv2d"], "sparse_ratio": 0.5}]
    config_list = tersely.auto_dependency_groups(model, given, image)
    session = tersely.prune(model, [*config_list, *following(model)], algorithm="l1_norm")

    shrunk = session.shrink(image)

    theirs = sum(parameter.numel() for parameter in peer.parameters())
    assert abs(shrunk.parameters[1] / theirs - 1) < 0.02
