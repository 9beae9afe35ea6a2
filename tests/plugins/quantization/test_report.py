"""What the report of a session says of targets that these algorithms quantized."""

import pytest
import torch
from messages.sessions import NO_SCALE_YET
from torch import nn

import tersely


def quantize(algorithm: str = "ptq", **entry: object) -> tersely.Report:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 4))
    config_list = [{"op_types": ["Linear"], **entry}]
    data = [torch.randn(16, 8)]
    return tersely.quantize(model, config_list, algorithm=algorithm, data=data).report()


def test_a_weight_shows_type_scheme_granularity_and_the_range_of_its_scales() -> None:
    pytest.importorskip("tersely_granularity")
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 2))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[7.0, -1.0], [2.0, -3.5]]))
    entry = {
        "op_types": ["Linear"],
        "target_names": ["weight"],
        "quant_dtype": "int4",
        "granularity": "out_channel",
    }

    [row] = tersely.quantize(model, [entry]).report().rows

    assert (row.dtype, row.scheme, row.granularity) == ("int4", "symmetric", "out_channel")
    assert (row.scales, row.scale_low, row.scale_high) == (2, 0.5, 1.0)
    assert row.bits == 4 * 4 + 2 * 32


def test_the_default_granularity_is_said_as_what_it_means() -> None:
    [row] = quantize(target_names=["_input_"], quant_scheme="affine").rows

    assert (row.granularity, row.scheme, row.scales) == ("tensor", "affine", 1)


def test_groups_are_said_as_they_were_written() -> None:
    pytest.importorskip("tersely_granularity")
    [row] = quantize(target_names=["weight"], granularity={"group": 4}).rows

    assert (row.granularity, row.scales) == ("group: 4", 8)


@pytest.mark.parametrize(
    ("algorithm", "entry"),
    [("rtn", {}), ("ptq", {"granularity": "per_token"})],
)
def test_what_is_chosen_at_every_call_says_so_and_is_nothing_unfinished(
    algorithm: str, entry: dict[str, object]
) -> None:
    if entry:
        pytest.importorskip("tersely_granularity")
    report = quantize(algorithm, target_names=["_input_"], **entry)

    assert report.rows[0].dynamic
    assert report.remarks == ()


def test_signs_are_reported_as_they_are_stored_whatever_the_config_says() -> None:
    report = quantize("bnn", target_names=["weight"], quant_dtype="int8")

    assert report.rows[0].dtype == "int2"
    assert report.quantized_size.bits == 32 * 2 + 32


def test_a_bypassed_weight_is_observed_and_counts_as_it_was() -> None:
    report = quantize(target_names=["weight"], apply_method="bypass")

    assert report.rows[0].observed_only
    assert report.quantized_size.elements == 0


def test_a_bias_of_the_accumulator_takes_the_granularity_of_its_weight() -> None:
    pytest.importorskip("tersely_granularity")
    settings = {"bias": {"quant_dtype": "int32"}, "weight": {"granularity": "per_channel"}}

    report = quantize(target_names=["_input_", "weight", "bias"], target_settings=settings)
    bias = next(row for row in report.rows if row.target == "bias")

    assert (bias.dtype, bias.granularity, bias.scales) == ("int32", "as the weight", 4)


def test_a_session_without_scales_says_what_to_call() -> None:
    stage = {
        "algorithm": "ptq",
        "config_list": [{"op_types": ["Linear"], "target_names": ["weight"]}],
    }

    report = tersely.attach(nn.Sequential(nn.Linear(8, 4)), {"quantization": stage}).report()

    assert [one.text for one in report.remarks] == [
        f"{NO_SCALE_YET} for 0.weight; call session.compress()"
    ]
    assert report.rows[0].dtype == "int8"


def test_a_finished_session_still_reports_its_scales() -> None:
    model = nn.Sequential(nn.Linear(8, 4))
    config_list = [{"op_types": ["Linear"], "target_names": ["weight"]}]
    session = tersely.quantize(model, config_list)
    before = session.report()

    session.finalize()

    assert session.report().rows == before.rows
