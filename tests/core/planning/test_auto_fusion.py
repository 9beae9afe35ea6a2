"""Finding what folds into a quantized module by running the model once."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

import tersely
from tersely.errors import PlanError

CONVS = [{"op_types": ["Conv2d"], "quant_dtype": "int8"}]
IMAGE = torch.randn(1, 3, 6, 6)


def conv(before: int = 3, after: int = 3) -> nn.Conv2d:
    return nn.Conv2d(before, after, 1)


def fused(model: nn.Module, config_list: Any = CONVS, inputs: Any = IMAGE) -> list[Any]:
    return [
        entry.get("fuse_names") for entry in tersely.auto_fuse_names(model, config_list, inputs)
    ]


class Functional(nn.Module):
    """A convolution and a batch norm, with something of the test's own between or after them."""

    def __init__(self, rest: Any) -> None:
        super().__init__()
        self.conv, self.norm, self.relu, self.rest = conv(), nn.BatchNorm2d(3), nn.ReLU(), rest

    def forward(self, image: torch.Tensor) -> Any:
        return self.rest(self, image)


@pytest.mark.parametrize(
    ("layers", "names"),
    [
        ([conv(), nn.BatchNorm2d(3), nn.ReLU()], ("0", "1", "2")),
        ([conv(), nn.BatchNorm2d(3), nn.ReLU(inplace=True)], ("0", "1", "2")),
        ([conv(), nn.BatchNorm2d(3)], ("0", "1")),
        ([conv(), nn.ReLU6()], ("0", "1")),
        ([conv(), nn.SyncBatchNorm(3), nn.Hardswish()], ("0", "1", "2")),
        ([conv(), nn.GELU()], ("0", "1")),
        ([conv(), nn.ReLU(), nn.BatchNorm2d(3)], ("0", "1")),
    ],
)
def test_a_chain_of_modules_is_folded_as_far_as_it_goes(
    layers: list[nn.Module], names: tuple[str, ...]
) -> None:
    assert fused(nn.Sequential(*layers)) == [[list(names)]]


@pytest.mark.parametrize(
    "layers",
    [
        [conv()],
        [conv(), nn.Dropout(), nn.BatchNorm2d(3)],
        [conv(), nn.BatchNorm2d(3, track_running_stats=False)],
        [nn.BatchNorm2d(3), conv()],
        [conv(), nn.MaxPool2d(1), nn.ReLU()],
    ],
)
def test_what_cannot_fold_is_left_alone(layers: list[nn.Module]) -> None:
    assert fused(nn.Sequential(*layers)) == [None]


def test_a_residual_ends_the_chain_at_the_batch_norm() -> None:
    model = Functional(lambda self, image: self.relu(self.norm(self.conv(image)) + image))

    assert fused(model) == [[["conv", "norm"]]]


@pytest.mark.parametrize(
    "rest",
    [
        lambda self, image: self.norm(made := self.conv(image)) + made,
        lambda self, image: (self.norm(made := self.conv(image)), made),
        lambda self, image: self.norm(made := self.conv(image)) * made.mean(),
        lambda self, image: self.norm(functional.relu(self.conv(image))),
        lambda self, image: self.norm(self.conv(image) * 2),
        lambda self, image: self.norm(self.conv(image)) + self.conv(image),
        lambda self, image: self.norm(self.norm(self.conv(image))),
        lambda self, image: self.norm(self.conv(image)[:, :3]),
        lambda self, image: self.norm(functional.relu_(made := self.conv(image)) + made),
    ],
)
def test_an_output_that_something_else_reads_is_not_folded(rest: Any) -> None:
    assert fused(Functional(rest)) == [None]


def test_asking_for_a_shape_is_not_reading() -> None:
    def rest(self: Any, image: torch.Tensor) -> torch.Tensor:
        made = self.conv(image)
        assert made.shape[1] == made.size(1) == 3
        return self.norm(made)

    assert fused(Functional(rest)) == [[["conv", "norm"]]]


def test_an_activation_that_is_used_twice_is_not_folded() -> None:
    model = Functional(lambda self, image: self.relu(self.norm(self.conv(self.relu(image)))))

    assert fused(model) == [[["conv", "norm"]]]


def test_an_activation_that_is_quantized_itself_is_not_folded() -> None:
    model = nn.Sequential(conv(), nn.BatchNorm2d(3), nn.ReLU())
    outputs = {"op_types": ["ReLU"], "target_names": ["_output_"], "quant_dtype": "uint8"}

    assert fused(model, [*CONVS, outputs]) == [[["0", "1"]], None]


def test_the_entry_that_decides_on_a_module_names_what_folds_into_it() -> None:
    model = nn.Sequential(conv(), nn.BatchNorm2d(3), conv(), nn.BatchNorm2d(3))
    later = {"op_names": ["2"], "quant_dtype": "int4"}

    assert fused(model, [*CONVS, later]) == [[["0", "1"]], [["2", "3"]]]


def test_what_is_written_already_is_kept() -> None:
    model = nn.Sequential(conv(), nn.BatchNorm2d(3), nn.ReLU(), conv(), nn.BatchNorm2d(3))
    config_list = [{**CONVS[0], "fuse_names": [["0", "1"]]}]

    assert fused(model, config_list) == [[["0", "1"], ["3", "4"]]]
    assert config_list[0]["fuse_names"] == [["0", "1"]]


def test_the_model_is_not_changed() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(conv(3, 8), nn.BatchNorm2d(8), nn.ReLU(), conv(8, 2)).eval()
    model[1].running_var.fill_(4.0)
    with torch.no_grad():
        dense = model(IMAGE)

    tersely.auto_fuse_names(model, CONVS, IMAGE)

    assert not any(module.training for module in model.modules())
    assert not model[0]._forward_hooks
    with torch.no_grad():
        assert torch.equal(model(IMAGE), dense)


def test_training_and_statistics_are_left_as_they_were() -> None:
    model = nn.Sequential(conv(), nn.BatchNorm2d(3))
    model[0].eval()

    tersely.auto_fuse_names(model, CONVS, IMAGE)

    assert (model.training, model[0].training, model[1].training) == (True, False, True)
    assert int(model[1].num_batches_tracked) == 0


def test_a_model_that_does_not_run_with_the_inputs_is_an_error() -> None:
    model = nn.Sequential(conv(), nn.BatchNorm2d(3))

    with pytest.raises(PlanError, match=r"does not run with the example inputs.*RuntimeError"):
        tersely.auto_fuse_names(model, CONVS, torch.ones(1, 5, 2, 2))

    assert not model[0]._forward_hooks


def test_a_wrong_config_list_is_an_error_before_the_model_runs() -> None:
    with pytest.raises(tersely.ConfigError):
        tersely.auto_fuse_names(
            nn.Linear(1, 1), [{"op_types": ["Linear"], "sparse_ratio": 1}], None
        )


def tied_convolutions() -> nn.Sequential:
    model = nn.Sequential(conv(), nn.BatchNorm2d(3), conv(), nn.BatchNorm2d(3))
    model[2].weight = model[0].weight
    return model


def test_layers_that_share_a_weight_are_left_out():
    assert fused(tied_convolutions()) == [None]


def test_a_norm_that_shares_a_parameter_is_left_out():
    model = nn.Sequential(conv(), nn.BatchNorm2d(3), conv(), nn.BatchNorm2d(3), conv(), nn.ReLU())
    model[3].bias = model[1].bias

    assert fused(model) == [[["4", "5"]]]
