"""Masks that follow others (rule B7), as sessions put them in force."""

import pytest
import torch
from torch import nn

import tersely
from tersely.pruning import alignment

pytestmark = pytest.mark.usefixtures("toy_pruners")


def follow(name, target, source, *, dims=(0,), module=None, **setting):
    align = {"module_name": module, "target_name": source, "dims": list(dims)}
    return {
        "op_names": [name],
        "target_names": [target],
        "target_settings": {target: {"align": align, **setting}},
    }


def rows(name, ratio=0.5):
    return {"op_names": [name], "target_names": ["weight"], "sparse_ratio": ratio}


def prune(model, *entries, algorithm="toy_rows", data=None):
    return tersely.prune(model, list(entries), algorithm=algorithm, data=data)


def linear(weight, *, bias=True):
    weight = torch.tensor(weight)
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias)
    with torch.no_grad():
        layer.weight.copy_(weight)
        if bias:
            layer.bias.fill_(1)
    return layer


def test_a_bias_follows_the_rows_of_its_weight():
    model = nn.Sequential(linear([[1.0, 1.0], [3.0, 3.0], [2.0, 2.0], [4.0, 4.0]]))
    session = prune(model, {"op_names": ["0"], "sparse_ratio": 0.5})
    assert session.masks()["0"]["bias"].tolist() == [False, True, False, True]
    assert model[0].bias.tolist() == [0.0, 1.0, 0.0, 1.0]


def test_a_bias_is_kept_while_anything_of_its_row_is():
    model = nn.Sequential(linear([[1.0, 9.0], [2.0, 3.0]]))
    session = prune(model, {"op_names": ["0"], "sparse_ratio": 0.75}, algorithm="toy")
    assert session.masks()["0"]["weight"].tolist() == [[False, True], [False, False]]
    assert session.masks()["0"]["bias"].tolist() == [True, False]


def test_chains_are_followed_in_whatever_order_they_are_written():
    model = nn.Sequential(linear([[1.0], [2.0]]), nn.BatchNorm1d(2), nn.BatchNorm1d(2))
    session = prune(
        model,
        follow("2", "weight", "bias", module="1"),
        follow("1", "bias", "weight"),
        follow("1", "weight", "weight", module="0"),
        rows("0"),
    )
    for name, target in (("1", "weight"), ("1", "bias"), ("2", "weight")):
        assert session.masks()[name][target].tolist() == [False, True]


def test_the_bias_of_a_transposed_convolution_repeats_its_channels_over_the_groups():
    model = nn.Sequential(nn.ConvTranspose2d(4, 4, 1, groups=2))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([1.0, 2.0]).view(1, 2, 1, 1).expand(4, 2, 1, 1))
    session = prune(model, {"op_names": ["0"], "sparse_ratio": 0.5})
    assert session.masks()["0"]["bias"].tolist() == [False, True, False, True]


def test_an_input_follows_the_layer_before_it():
    model = nn.Sequential(linear([[1.0], [2.0]], bias=False), linear([[5.0, 5.0]], bias=False))
    session = prune(model, rows("0"), follow("1", "_input_", "weight", module="0"))
    assert session.masks()["1"]["_input_"].tolist() == [False, True]
    assert model(torch.ones(1, 1)).tolist() == [[10.0]]


def test_a_weight_follows_the_input_channels_of_another():
    model = nn.Sequential(linear([[1.0, 4.0], [2.0, 3.0]], bias=False), nn.LayerNorm(2))
    session = prune(
        model,
        {"op_names": ["0"], "target_names": ["weight"], "sparse_threshold": 2.5},
        follow("1", "weight", "weight", module="0", dims=(-1,)),
        algorithm="toy",
    )
    assert session.masks()["1"]["weight"].tolist() == [False, True]


@pytest.mark.parametrize("spelling", ["_output_", "_output_0"])
@pytest.mark.parametrize("planned", ["_output_", "_output_0"])
def test_a_source_may_be_spelled_either_way(planned, spelling):
    model = nn.Sequential(nn.Identity(), nn.Identity())
    data = torch.tensor([[1.0, 2.0]])
    session = prune(
        model,
        {"op_names": ["0"], "target_names": [planned], "sparse_ratio": 0.5},
        follow("1", "_input_", spelling, module="0"),
        data=[data],
    )
    assert session.masks()["1"]["_input_"].tolist() == [False, True]


@pytest.mark.parametrize("spelling", ["_input_", "_input_0", "_input_input"])
@pytest.mark.parametrize("planned", ["_input_", "_input_0", "_input_input"])
def test_an_input_may_be_spelled_by_position_or_name(planned, spelling):
    model = nn.Sequential(nn.Identity())
    session = prune(
        model,
        {
            "op_names": ["0"],
            "target_names": [planned, "_output_"],
            "target_settings": {
                planned: {"sparse_ratio": 0.5},
                "_output_": {"align": {"target_name": spelling, "dims": [0]}},
            },
        },
        data=[torch.tensor([[1.0, 2.0]])],
    )
    assert session.masks()["0"]["_output_"].tolist() == [False, True]


def test_a_source_may_be_named_by_another_name_of_its_module():
    layer = linear([[1.0, 1.0], [2.0, 2.0]])
    model = nn.Sequential(layer, nn.BatchNorm1d(2), layer)
    session = prune(model, rows("0"), follow("1", "weight", "weight", module="2"))
    assert session.masks()["1"]["weight"].tolist() == [False, True]


def test_an_aligned_mask_is_placed_on_the_granularity_of_its_own(toy_halves):
    model = nn.Sequential(linear([[1.0], [4.0], [2.0], [3.0]], bias=False), nn.BatchNorm1d(4))
    session = prune(
        model,
        rows("0", 0.75),
        follow("1", "weight", "weight", module="0", granularity="toy_halves"),
    )
    assert session.masks()["0"]["weight"].flatten().tolist() == [False, True, False, False]
    assert session.masks()["1"]["weight"].tolist() == [True, True, False, False]


def test_a_source_without_a_request_keeps_everything_that_follows():
    model = nn.Sequential(linear([[1.0], [2.0]]))
    session = prune(model, {"op_names": ["0"]})
    assert session.masks()["0"]["bias"].tolist() == [True, True]


def test_an_output_that_follows_needs_no_calibration():
    model = nn.Sequential(linear([[1.0], [2.0]], bias=False), nn.ReLU())
    session = prune(model, rows("0"), follow("1", "_output_", "weight", module="0"))
    assert session.masks()["1"]["_output_"].tolist() == [False, True]
    assert session.sparsity()["1"]["_output_"] == 0.5


def test_an_output_can_follow_one_dimension_only():
    model = nn.Sequential(linear([[1.0, 2.0], [3.0, 4.0]], bias=False), nn.ReLU())
    with pytest.raises(tersely.PlanError) as caught:
        prune(
            model,
            rows("0"),
            follow("1", "_output_", "weight", module="0", dims=(0, 1)),
            algorithm="toy",
        )
    assert str(caught.value) == (
        "pruning.config_list[1]: 1._output_: align.dims of an input or output must be one "
        "dimension, which its channels follow; found 2"
    )
    assert type(model[0]) is nn.Linear


def test_before_the_first_batch_the_mask_of_an_output_has_the_dimensions_it_knows():
    model = nn.Sequential(nn.Conv2d(1, 2, 1, bias=False))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([1.0, 2.0]).view(2, 1, 1, 1))
    session = prune(model, rows("0"), follow("0", "_output_", "weight"))
    assert session.masks()["0"]["_output_"].tolist() == [[[False]], [[True]]]


class Pairs:
    """Two channels of an input or output; the batch is never cut."""

    def blocks(self, shape, target):
        if shape[target.channel_dim] % 2:
            raise ValueError(f"pairs need an even number, found {shape[target.channel_dim]}")
        size = [-1] * len(shape)
        size[target.channel_dim] = 2
        return tersely.Blocks(tuple(size))


@pytest.fixture
def toy_pairs():
    class Face:
        @tersely.hookimpl
        def tersely_granularities(self):
            reference = f"{Pairs.__module__}:Pairs"
            return [tersely.GranularityInfo(name="toy_pairs", implementation=reference)]

    name = tersely.registry().register(Face(), name="tersely-pairs")
    yield
    tersely.registry().unregister(name)


@pytest.mark.usefixtures("toy_pairs")
class TestBlocksOfAnActivation:
    def test_a_block_of_channels_is_kept_when_anything_of_it_is(self):
        model = nn.Sequential(linear([[4.0], [1.0], [2.0], [3.0]], bias=False), nn.Identity())
        prune(
            model,
            follow("1", "_output_", "weight", module="0", granularity="toy_pairs"),
            rows("0", 0.75),
        )
        # Row 0 alone stays; channel 1 is in its block.
        assert model[1](torch.ones(2, 4)).tolist() == [[1.0, 1.0, 0.0, 0.0]] * 2

    def test_it_lies_on_dimension_1_behind_a_convolution(self):
        conv = nn.Conv2d(1, 4, 1, bias=False)
        with torch.no_grad():
            conv.weight.copy_(torch.tensor([4.0, 1.0, 2.0, 3.0]).reshape(4, 1, 1, 1))
        model = nn.Sequential(conv, nn.BatchNorm2d(4))
        session = prune(
            model,
            follow("1", "_input_", "weight", module="0", granularity="toy_pairs"),
            rows("0", 0.75),
        )
        assert session.masks()["1"]["_input_"].flatten().tolist() == [True, True, False, False]

    def test_blocks_that_do_not_divide_the_channels_are_an_error(self):
        model = nn.Sequential(linear([[4.0], [1.0], [2.0]], bias=False), nn.Identity())
        with pytest.raises(tersely.PlanError, match=r"1\._output_: pairs need .* found 3"):
            prune(
                model,
                follow("1", "_output_", "weight", module="0", granularity="toy_pairs"),
                rows("0"),
            )


def transposed():
    return nn.ConvTranspose2d(4, 4, 1, groups=2)


def by_columns(name):
    return [rows(name), follow(name, "bias", "weight", dims=[1])]


def plainly(name):
    return [{"op_names": [name], "sparse_ratio": 0.5}]


@pytest.mark.parametrize(
    ("made", "entries"),
    [
        (lambda: nn.Linear(3, 4), plainly),
        (transposed, plainly),
        (lambda: nn.Conv2d(4, 4, 3), plainly),
        (lambda: nn.Linear(4, 4), by_columns),
    ],
)
def test_many_small_followers_get_the_masks_that_each_alone_gets(made, entries):
    torch.manual_seed(0)
    model = nn.Sequential(*(made() for _ in range(6)))

    session = prune(model, *(one for index in range(6) for one in entries(str(index))))
    together = session.masks()
    session.detach()

    for name, masks in together.items():
        session = prune(model, *entries(name))
        assert masks["bias"].tolist() == session.masks()[name]["bias"].tolist()
        session.detach()


def test_many_small_followers_are_placed_by_one_call(monkeypatch):
    calls = []

    def counted(*args, **kwargs):
        calls.append(args)
        return place_kept(*args, **kwargs)

    place_kept = alignment.place_kept
    monkeypatch.setattr(alignment, "place_kept", counted)
    prune(
        nn.Sequential(*(nn.Linear(3, 4) for _ in range(20))),
        {"op_types": ["Linear"], "sparse_ratio": 0.5},
    )
    assert len(calls) == 1
