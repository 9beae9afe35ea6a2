"""Tuples of modules that fold into their first, and the links of distillation."""

import pytest
from messages.planning import LEAVE_IT_OUT, LINK_ANOTHER, no_module
from torch import nn


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3)
        self.bn = nn.BatchNorm2d(4)
        self.act = nn.ReLU()
        self.fc = nn.Linear(4, 4)
        self.norm = nn.LayerNorm(4)
        self.alias = self.bn


@pytest.fixture
def block():
    return Block()


@pytest.fixture
def folding():
    def folding(*tuples, op_names=("conv", "fc")):
        return {"op_names": list(op_names), "fuse_names": [list(names) for names in tuples]}

    return folding


@pytest.fixture
def fusion_problems(problems, block):
    return lambda *entries: problems(block, *entries, method="quantization")


@pytest.mark.parametrize(
    "names",
    [("conv", "bn"), ("conv", "act"), ("conv", "bn", "act"), ("conv", "alias"), ("fc", "act")],
)
def test_known_combinations_fold(make, block, folding, names):
    plan = make(block, folding(names), method="quantization")

    assert plan.selected == ("conv", "fc")


@pytest.mark.parametrize(
    ("head", "norm"),
    [
        (nn.Conv1d(2, 2, 1), nn.BatchNorm1d(2)),
        (nn.Conv3d(2, 2, 1), nn.BatchNorm3d(2)),
        (nn.Linear(2, 2), nn.BatchNorm1d(2)),
        (nn.ConvTranspose1d(2, 2, 1), nn.BatchNorm1d(2)),
        (nn.ConvTranspose3d(2, 2, 1), nn.BatchNorm3d(2)),
        (nn.Conv2d(2, 2, 1), nn.SyncBatchNorm(2)),
    ],
    ids=["Conv1d", "Conv3d", "Linear", "ConvTranspose1d", "ConvTranspose3d", "SyncBatchNorm"],
)
def test_a_layer_folds_with_the_norm_of_its_dimensions(make, head, norm):
    model = nn.Sequential(head, norm, nn.ReLU6())
    entry = {"op_names": ["0"], "fuse_names": [["0", "1", "2"]]}

    assert len(make(model, entry, method="quantization")) == 4


@pytest.mark.parametrize(
    ("names", "types"),
    [
        (("fc", "norm"), "Linear + LayerNorm"),
        (("conv", "act", "bn"), "Conv2d + ReLU + BatchNorm2d"),
        (("fc", "bn"), "Linear + BatchNorm2d"),
        (("fc", "act", "act"), "Linear + ReLU + ReLU"),
    ],
)
def test_an_unknown_combination_is_an_error(fusion_problems, folding, names, types):
    assert fusion_problems(folding(names)) == [
        f"quantization.config_list[0].fuse_names[0]: {types} cannot be folded; known are a "
        "convolution, also a transposed one, or Linear with its batch norm, with an activation, or "
        "with both in this order, and a batch norm with an activation; activations are ELU, GELU, "
        "Hardsigmoid, Hardswish, Hardtanh, LeakyReLU, Mish, ReLU, ReLU6, SiLU, Sigmoid, Tanh"
    ]


def test_every_name_that_is_missing_is_an_error_with_the_nearest(fusion_problems, folding):
    assert fusion_problems(folding(("conv", "bn1", "relu"))) == [
        f"quantization.config_list[0].fuse_names[0]: {no_module('bn1')}; did you mean 'bn'?",
        f"quantization.config_list[0].fuse_names[0]: {no_module('relu')}",
    ]


def test_a_first_name_that_another_entry_selects_is_an_error(fusion_problems, folding):
    found = fusion_problems(folding(("conv", "bn"), op_names=["fc"]), {"op_names": ["conv"]})

    assert found == [
        "quantization.config_list[0].fuse_names[0]: 'conv' is not among the modules this entry "
        "selects; the first name must be the module that is quantized"
    ]


def test_a_module_configured_besides_being_folded_is_an_error(fusion_problems, folding):
    assert fusion_problems(folding(("conv", "alias")), {"op_names": ["bn"]}) == [
        "quantization.config_list[0].fuse_names[0]: 'alias' is both configured and folded into "
        "'conv'; leave it out of op_names or out of the tuple"
    ]


def test_a_module_folds_once(fusion_problems, folding):
    assert fusion_problems(folding(("conv", "act"), ("fc", "act"))) == [
        "quantization.config_list[0].fuse_names[1]: 'act' is in "
        "quantization.config_list[0].fuse_names[0] too; a module folds once"
    ]


def test_a_module_that_shares_a_parameter_does_not_fold(fusion_problems, folding, block):
    block.other = nn.Conv2d(1, 1, 1)
    block.other.weight = block.conv.weight

    assert fusion_problems(folding(("conv", "bn"))) == [
        (
            "quantization.config_list[0].fuse_names[0]: 'conv' shares its 'weight' with another "
            f"module, which folding would change as well; {LEAVE_IT_OUT} tuple"
        )
    ]


@pytest.fixture
def teacher():
    return nn.ModuleDict({"layer1": nn.ReLU(), "layer2": nn.ReLU()})


def test_links_are_found_in_the_teacher(make, block, teacher):
    entry = {"op_names": ["fc"], "link": ["layer1", "layer2"]}

    assert len(make(block, entry, method="distillation", teacher=teacher)) == 1


def test_a_link_that_the_teacher_lacks_is_an_error_with_near_names(problems, block, teacher):
    entry = {"op_names": ["fc", "act"], "link": "layer3"}

    assert problems(block, entry, method="distillation", teacher=teacher) == [
        "distillation.config_list[0]: act._output_ and 1 more: link 'layer3' is not a module of "
        "the teacher; did you mean 'layer2' or 'layer1'?"
    ]


def test_every_link_of_a_list_is_looked_up(problems, block, teacher):
    entry = {"op_names": ["fc"], "link": ["x", "layer1", "y"]}

    assert problems(block, entry, method="distillation", teacher=teacher) == [
        "distillation.config_list[0]: fc._output_: link 'x' is not a module of the teacher",
        "distillation.config_list[0]: fc._output_: link 'y' is not a module of the teacher",
    ]


def test_the_default_link_is_the_name_of_the_module(problems, block, teacher):
    assert problems(block, {"op_names": ["fc"]}, method="distillation", teacher=teacher) == [
        "distillation.config_list[0]: fc._output_: link 'fc' is not a module of the teacher (the "
        "default link is the module's own name)"
    ]


def test_a_parameter_is_looked_up_in_the_teacher_s_module(problems, block, teacher):
    entry = {"op_names": ["fc"], "target_names": ["weight"], "link": "layer1"}

    assert problems(block, entry, method="distillation", teacher=teacher) == [
        (
            "distillation.config_list[0]: fc.weight: link 'layer1' of the teacher is a ReLU "
            f"without 'weight'; {LINK_ANOTHER}"
        )
    ]


def test_links_are_not_checked_without_a_teacher(make, block):
    assert len(make(block, {"op_names": ["fc"], "link": "x"}, method="distillation")) == 1


@pytest.mark.parametrize(
    ("keys", "loss"),
    [({}, "mse"), ({"apply_method": "kl"}, "kl"), ({"apply_method": {"kl": {}}}, "kl")],
)
def test_the_algorithm_of_a_distilled_target_is_its_loss(make, block, keys, loss):
    plan = make(block, {"op_names": ["fc"], **keys}, method="distillation")

    assert [target.algorithm for target in plan] == [loss]
