"""Modules that calibration never reached, reached without a row, or fed with zeros alone."""

import pytest
import torch
from messages.sessions import asked_for
from torch import nn

import tersely
from tersely.errors import CompressionWarning
from tersely.reporting.report import SparsityWarning

PRUNERS = ["wanda", "sparsegpt", "apoz", "mean_activation"]
QUANTIZERS = ["gptq", "awq"]


class Experts(nn.Module):
    """Three experts and an input of which some get rows, as the router says."""

    def __init__(self, share, *, always):
        super().__init__()
        self.share, self.always = share, always
        self.experts = nn.ModuleList(nn.Linear(8, 8) for _ in share)

    def forward(self, x):
        out = torch.zeros_like(x)
        for expert, rows in zip(self.experts, self.share, strict=True):
            if rows or self.always:
                out[:rows] += expert(x[:rows])
        return out


def build(*share, always=True):
    torch.manual_seed(0)
    return Experts(share, always=always)


def recipe_of(algorithm, **stage):
    entry = {"op_types": ["Linear"], "target_names": ["weight"]}
    if algorithm in PRUNERS:
        entry["sparse_ratio"] = 0.5
    else:
        entry |= {"quant_dtype": "int4", "granularity": "per_channel"}
    method = "pruning" if algorithm in PRUNERS else "quantization"
    return {method: {"algorithm": algorithm, "config_list": [entry], **stage}}


def compress(model, algorithm, batch, **stage):
    session = tersely.attach(model, recipe_of(algorithm, **stage))
    session.calibrate([batch])
    session.compress()
    return session


def batch():
    return torch.randn(16, 8, generator=torch.Generator().manual_seed(1))


def rows_of(*names):
    return ", ".join(f"experts.{name}.weight" for name in names)


def expected_mask(algorithm, weight):
    """The upper half of the magnitudes: in each row, or of whole rows."""
    size = weight.abs()
    if algorithm in ("wanda", "sparsegpt"):
        return torch.zeros_like(size).scatter_(1, size.topk(4, 1).indices, 1).bool()
    sums = size.sum(1, keepdim=True)
    return (sums > sums.flatten().kthvalue(4).values).expand(8, 8)


@pytest.mark.parametrize("algorithm", PRUNERS)
@pytest.mark.parametrize("unseen", ["no_rows", "zeros"])
def test_magnitude_ranks_where_calibration_shows_nothing(algorithm, unseen):
    if unseen == "no_rows":
        model, inputs = build(16, 0, 0), batch()
        names = (1, 2)
    else:
        model, inputs = build(16, 16, 16), torch.zeros(16, 8)
        names = (0, 1, 2)
    for expert in model.experts:
        expert.bias.data.fill_(-1 if algorithm == "apoz" else 0)
        expert.bias.data.mul_(unseen == "zeros" or algorithm == "apoz")
    raw = [expert.weight.detach().clone() for expert in model.experts]

    with pytest.warns(CompressionWarning) as caught:
        session = compress(model, algorithm, inputs)

    for name in names:
        mask = session.masks()[f"experts.{name}"]["weight"]
        assert torch.equal(mask, expected_mask(algorithm, raw[name]))
    assert [str(one.message) for one in caught] == [
        f"calibration observed nothing for {len(names)} targets: no row reached their modules, or "
        "all of what they saw or produced was zero; they are ranked by the magnitude of their "
        f"weights: {rows_of(*names)}; calibrate with batches that reach them"
    ]


@pytest.mark.parametrize("algorithm", QUANTIZERS)
@pytest.mark.parametrize("unseen", ["no_rows", "zeros"])
def test_weights_are_rounded_to_nearest_where_calibration_shows_nothing(algorithm, unseen):
    model, inputs = build(16, 16, 0), batch()
    names = (2,)
    if unseen == "zeros":
        model, inputs, names = build(16, 16, 16), torch.zeros(16, 8), (0, 1, 2)
    plain = build(16, 16, 16)
    tersely.quantize(plain, recipe_of("awq")["quantization"]["config_list"], algorithm="rtn")

    with pytest.warns(CompressionWarning) as caught:
        compress(model, algorithm, inputs)

    for name in names:
        assert torch.equal(model.experts[name].weight, plain.experts[name].weight)
    (text,) = [str(one.message) for one in caught]
    assert f"they are rounded to nearest: {rows_of(*names)};" in text


@pytest.mark.parametrize("algorithm", [*PRUNERS, *QUANTIZERS])
def test_one_error_names_all_modules_that_no_batch_reached(algorithm):
    model = build(16, 0, 0, always=False)

    with pytest.raises(tersely.CalibrationError) as caught:
        compress(model, algorithm, batch())

    assert str(caught.value) == (
        f"2 targets were not reached in calibration: {rows_of(1, 2)}; no batch reached their "
        f"modules, or something reads weights or calls forward without calling the modules; run "
        f"them, leave them out, or write unreached in their stage"
    )


def test_one_error_names_inputs_and_modules_of_all_stages():
    model = build(16, 0, 0, always=False)
    recipe = recipe_of("apoz") | {
        "quantization": {
            "algorithm": "ptq",
            "config_list": [{"op_types": ["Linear"], "target_names": ["_input_", "_output_"]}],
        }
    }

    with pytest.raises(tersely.CalibrationError) as caught:
        tersely.attach(model, recipe).calibrate([batch()])

    names = ["experts.1.weight", "experts.2.weight"]
    names += [f"experts.{one}.{end}" for one in (1, 2) for end in ("_input_", "_output_")]
    assert str(caught.value).startswith(
        f"6 targets were not reached in calibration: {', '.join(names)}; "
    )


@pytest.mark.parametrize("algorithm", PRUNERS)
def test_unreached_weights_stay_dense_where_the_stage_says_so(algorithm):
    model = build(16, 16, 0, always=False)

    with pytest.warns(SparsityWarning, match=f"^experts.2.weight: {asked_for(0.5)}, got 0 "):
        session = compress(model, algorithm, batch(), unreached="dense")

    assert session.masks()["experts.2"]["weight"].all()
    assert session.sparsity()["experts.0"]["weight"] == 0.5


@pytest.mark.parametrize("algorithm", PRUNERS)
def test_unreached_weights_are_ranked_by_magnitude_where_the_stage_says_so(algorithm):
    model = build(16, 16, 0, always=False)
    raw = model.experts[2].weight.detach().clone()

    with pytest.warns(CompressionWarning, match=r"observed nothing for 1 targets"):
        session = compress(model, algorithm, batch(), unreached="magnitude")

    mask = session.masks()["experts.2"]["weight"]
    assert torch.equal(mask, expected_mask(algorithm, raw))


@pytest.mark.parametrize("algorithm", QUANTIZERS)
def test_unreached_weights_are_not_quantized_where_the_stage_says_dense(algorithm):
    model = build(16, 16, 0, always=False)
    raw = model.experts[2].weight.detach().clone()

    session = compress(model, algorithm, batch(), unreached="dense")

    assert "experts.2" not in session.qparams()
    assert torch.equal(session.finalize().experts[2].weight, raw)


@pytest.mark.parametrize("algorithm", QUANTIZERS)
def test_unreached_weights_are_rounded_where_the_stage_says_rtn(algorithm):
    model, plain = build(16, 16, 0, always=False), build(16, 16, 0)
    tersely.quantize(plain, recipe_of("awq")["quantization"]["config_list"], algorithm="rtn")

    with pytest.warns(CompressionWarning, match=r"rounded to nearest: experts.2.weight;"):
        compress(model, algorithm, batch(), unreached="rtn")

    assert torch.equal(model.experts[2].weight, plain.experts[2].weight)


def test_unreached_inputs_stay_floats_where_the_stage_says_so():
    model = build(16, 0, always=False)
    entry = {"op_types": ["Linear"], "target_names": ["_input_", "weight"]}
    stage = {"algorithm": "ptq", "config_list": [entry], "unreached": "dense"}
    session = tersely.attach(model, {"quantization": stage})

    session.calibrate([batch()])
    session.compress()

    assert set(session.qparams()["experts.0"]) == {"_input_", "weight"}
    assert set(session.qparams()["experts.1"]) == {"weight"}
    inputs = batch()
    weight = model.experts[1].weight
    assert torch.equal(
        model.experts[1](inputs), nn.functional.linear(inputs, weight, model.experts[1].bias)
    )


def test_a_group_whose_inputs_are_zero_is_ranked_by_magnitude_and_the_others_are_not():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv1d(4, 4, 2, groups=2))
    raw = model[0].weight.detach().clone()
    inputs = torch.randn(4, 4, 6)
    inputs[:, 2:] = 0
    entry = {"op_names": ["0"], "sparse_ratio": 0.5}

    with pytest.warns(CompressionWarning, match=r"nothing for 1 targets"):
        session = tersely.prune(model, [entry], algorithm="wanda", data=[inputs])

    mask = session.masks()["0"]["weight"].flatten(1)
    size = raw.abs().flatten(1)
    wanted = torch.zeros_like(size).scatter_(1, size.topk(2, 1).indices, 1).bool()
    assert torch.equal(mask[2:], wanted[2:])
    assert mask[:2].sum() == 4


def test_what_a_ratio_leaves_over_in_each_output_is_taken_from_the_smallest_of_the_rest():
    model = nn.Sequential(nn.Linear(3, 2, bias=False))
    model[0].weight.data = torch.tensor([[1.0, 2.0, 3.0], [20.0, 4.0, 30.0]])

    with pytest.warns(CompressionWarning, match=r"nothing for 1 targets"):
        session = tersely.prune(
            model,
            [{"op_types": ["Linear"], "sparse_ratio": 0.5}],
            algorithm="sparsegpt",
            data=[torch.zeros(4, 3)],
        )

    # Three of six: the smallest of each output, then 2, the smallest of what is left.
    wanted = torch.tensor([[False, False, True], [True, False, True]])
    assert torch.equal(session.masks()["0"]["weight"], wanted)


def test_an_output_of_small_weights_loses_one_more_than_the_others_at_most():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 6, bias=False))
    model[0].weight.data[0] *= 1e-6

    with pytest.warns(CompressionWarning, match=r"nothing for 1 targets"):
        session = tersely.prune(
            model,
            [{"op_types": ["Linear"], "sparse_ratio": 0.7}],
            algorithm="sparsegpt",
            data=[torch.zeros(4, 8)],
        )

    # 5 of 8 in each output, and 3 more to come to 33 of 48: one of the small ones is the first.
    kept = session.masks()["0"]["weight"].sum(1).tolist()
    assert kept[0] == 2
    assert sorted(kept) == [2, 2, 2, 3, 3, 3]
