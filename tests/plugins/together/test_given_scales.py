"""`session.set_qparams`: scales and zero points that the user puts in."""

import pytest
import torch
from torch import nn

import tersely
from tersely.session.finalizing.baking import FinalizeWarning

ENTRY = {"op_types": ["Linear"], "target_names": ["_input_", "weight", "_output_"]}


def build(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))


@pytest.fixture
def data():
    return torch.randn(16, 4, generator=torch.Generator().manual_seed(1))


def attach(model, algorithm="ptq", options=None, **keys):
    stage = {"algorithm": algorithm, "config_list": [ENTRY | keys], "options": options or {}}
    return tersely.attach(model, {"quantization": stage})


def scale(value, dtype="int8", **changes):
    value = torch.as_tensor(value)
    limits = {"int8": (-127, 127), "uint8": (0, 255), "int4": (-7, 7)}[dtype]
    zero_point = torch.full(value.shape, 128 if dtype == "uint8" else 0, dtype=torch.int32)
    qparams = tersely.QParams(
        scale=value,
        zero_point=zero_point,
        quant_min=limits[0],
        quant_max=limits[1],
        dtype=dtype,
        scheme="symmetric",
    )
    return qparams.evolve(**changes)


def all_given(value=0.5):
    targets = {"_input_": scale(value), "weight": scale(value), "_output_": scale(value)}
    return {"0": targets, "2": targets}


def rounded(tensor, step):
    return (tensor / step).round().clamp(-127, 127) * step


def test_given_scales_are_in_force_without_calibration_and_compress(data):
    model = build()
    session = attach(model)
    session.set_qparams(all_given())
    plain = build()
    hidden = rounded(
        nn.functional.linear(rounded(data, 0.5), rounded(plain[0].weight, 0.5), plain[0].bias), 0.5
    ).relu()
    expected = rounded(
        nn.functional.linear(rounded(hidden, 0.5), rounded(plain[2].weight, 0.5), plain[2].bias),
        0.5,
    )
    assert torch.equal(model(data), expected)
    with pytest.warns(FinalizeWarning, match="stay instrumented"):
        session.finalize()
    assert torch.equal(model(data), expected)


def test_compress_keeps_what_was_given_and_needs_calibration_for_the_others_only(data):
    session = attach(build())
    session.set_qparams({"0": {"_input_": scale(0.5)}, "2": {"_input_": scale(0.25)}})
    with pytest.raises(tersely.SessionError, match=r"0\._output_ is quantized by the range"):
        session.compress()
    session.calibrate([data])
    session.compress()
    found = session.qparams()
    assert found["0"]["_input_"].scale == 0.5
    assert found["2"]["_input_"].scale == 0.25
    assert found["0"]["weight"].scale == build()[0].weight.abs().max() / 127
    session.compress()
    assert session.qparams()["0"]["_input_"].scale == 0.5


def test_none_leaves_a_target_to_its_algorithm_again(data):
    session = attach(build())
    session.set_qparams({"0": {"_input_": scale(0.5)}})
    session.calibrate([data])
    session.set_qparams({"0": {"_input_": None}})
    session.calibrate([data])
    session.compress()
    assert session.qparams()["0"]["_input_"].scale == data.abs().max() / 127


@pytest.mark.parametrize("algorithm", ["ptq", "qat", "lsq", "lsq_plus", "gptq", "dorefa"])
@pytest.mark.parametrize("granularity", ["default", "per_channel"])
@pytest.mark.parametrize("scheme", ["symmetric", "affine"])
def test_what_qparams_returns_can_be_given(data, algorithm, granularity, scheme):
    if algorithm == "dorefa" and granularity != "default":
        granularity = "default"  # it has no other
    model = build()
    session = attach(model, algorithm, granularity=granularity, quant_scheme=scheme)
    session.calibrate([data])
    session.compress()
    model.eval()
    before, found = model(data), session.qparams()
    session.set_qparams(found)
    assert torch.equal(model(data), before)
    other = attach(build(), algorithm, granularity=granularity, quant_scheme=scheme)
    other.set_qparams(found)
    other.model.eval()
    if algorithm != "gptq":  # whose weights are other ones
        assert torch.equal(other.model(data), before)
    for module, targets in other.qparams().items():
        for target, qparams in targets.items():
            assert torch.equal(qparams.scale.flatten(), found[module][target].scale.flatten())


@pytest.mark.parametrize("granularity", [[1, 2], {"group": 2}])
def test_blocks_of_weights_and_of_inputs_have_a_scale_each(data, granularity):
    session = attach(build(), granularity=granularity)
    session.calibrate([data])
    session.compress()
    found = session.qparams()
    assert found["0"]["weight"].scale.shape == (6, 2)
    other = attach(build(), granularity=granularity)
    other.set_qparams(found)
    assert torch.equal(other.model(data), session.model(data))


def test_a_vector_over_output_channels_is_enough():
    model = build()
    entry = {"op_names": ["0"], "target_names": ["weight"], "granularity": "per_channel"}
    stage = {"algorithm": "ptq", "config_list": [entry]}
    session = tersely.attach(model, {"quantization": stage})
    session.set_qparams({"0": {"weight": scale([1.0, 0.5, 0.25, 1.0, 0.5, 0.25])}})
    assert session.qparams()["0"]["weight"].scale.shape == (6, 1)
    steps = torch.tensor([1.0, 0.5, 0.25, 1.0, 0.5, 0.25])[:, None]
    assert torch.equal(model[0].weight, rounded(build()[0].weight, steps))


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"0": {"wieght": scale(0.5)}}, "no target 0.wieght; did you mean 0.weight"),
        ({"1": {"weight": scale(0.5)}}, "no target 1.weight; did you mean"),
        ({"0": {"weight": 0.5}}, "found a float, expected tersely.QParams or None"),
        ({"0": {"weight": scale(0.5, "int4")}}, "dtype is 'int4', and the plan has 'int8'"),
        ({"0": {"weight": scale(0.5, scheme="affine")}}, "scheme is 'affine', and the plan has"),
        ({"0": {"weight": scale(0.5, quant_min=-128)}}, "quant_min is -128, and the plan has -127"),
        ({"0": {"weight": scale([0.5, 0.5])}}, r"scale has shape \[2\], expected \[\]"),
        ({"0": {"_input_": scale([0.5, 0.5])}}, r"scale has shape \[2\], expected one scale: \[\]"),
        ({"0": {"weight": scale(float("nan"))}}, "a scale is nan, expected finite numbers above"),
        ({"0": {"weight": scale(0.0)}}, "a scale is 0.0, expected"),
        ({"0": {"weight": scale(1)}}, "scale has dtype int64, expected a float type"),
        ({"0": {"weight": scale(0.5, scale=0.5)}}, "scale is a float, expected a tensor"),
        (
            {"0": {"weight": scale(0.5, zero_point=torch.tensor([0, 0]))}},
            r"zero_point has shape \[2\], expected the scale's \[\]",
        ),
        (
            {"0": {"weight": scale(0.5, zero_point=torch.tensor(3))}},
            "zero_point has to be 0 for int8",
        ),
        (
            {"0": {"weight": scale(0.5, zero_point=torch.tensor(0.5))}},
            "zero_point holds values that are not integers",
        ),
        (
            {"0": {"weight": scale(0.5, zero_point=torch.tensor(300))}},
            "outside of the integers -127 to 127",
        ),
    ],
)
def test_what_does_not_fit_is_an_error_and_nothing_changes(data, given, text):
    session = attach(build())
    session.calibrate([data])
    session.compress()
    before = session.model(data)
    good = {"2": {"weight": scale(0.5)}}
    with pytest.raises(tersely.SessionError, match=text):
        session.set_qparams({**good, **given})
    assert torch.equal(session.model(data), before)


def test_another_block_size_than_the_plans_is_an_error():
    session = attach(build(), target_names=["weight"], granularity=[1, 2])
    qparams = scale(torch.ones(6, 2))
    session.set_qparams({"0": {"weight": qparams.evolve(block_size=(1, 2))}})
    with pytest.raises(tersely.SessionError, match=r"block_size is \[6, 1\], and the plan has"):
        session.set_qparams({"0": {"weight": qparams.evolve(block_size=(6, 1))}})
    with pytest.raises(tersely.SessionError, match=r"scale has shape \[2, 6\], expected \[6, 2\]"):
        session.set_qparams({"0": {"weight": scale(torch.ones(2, 6))}})


def test_scales_for_other_channels_than_calibration_saw_are_an_error(data):
    session = attach(build(), granularity="per_channel")
    session.calibrate([data])
    with pytest.raises(tersely.SessionError, match="calibration saw 4 channels"):
        session.set_qparams({"0": {"_input_": scale(torch.ones(5))}})


def test_scales_for_other_channels_are_told_by_the_first_forward(data):
    session = attach(build(), granularity="per_channel", target_names=["_input_"])
    session.set_qparams({"0": {"_input_": scale(torch.ones(5))}})
    with pytest.raises(tersely.SessionError, match=r"its scales have shape \[5\]"):
        session.model(data)


def test_scales_of_each_call_and_of_accumulators_cannot_be_given():
    session = attach(build(), granularity="per_token", target_names=["_input_"])
    with pytest.raises(tersely.SessionError, match="quantized by the range of each call's own"):
        session.set_qparams({"0": {"_input_": scale(0.5)}})
    entry = ENTRY | {"target_settings": {"bias": {"quant_dtype": "int32"}}}
    entry = entry | {"target_names": ["_input_", "weight", "bias"]}
    stage = {"algorithm": "ptq", "config_list": [entry]}
    session = tersely.attach(build(), {"quantization": stage})
    with pytest.raises(tersely.SessionError, match="scales of its input and its weight; set those"):
        session.set_qparams({"0": {"bias": scale(0.5)}})


def train(session, data, steps=3):
    session.model.train()
    optimizer = torch.optim.SGD(session.model.parameters(), lr=0.1)
    for _ in range(steps):
        optimizer.zero_grad()
        session.model(data).square().mean().backward()
        optimizer.step()
        session.step()


def test_ranges_of_qat_move_on_from_what_was_given(data):
    session = attach(build(), "qat")
    session.set_qparams({"0": {"_input_": scale(0.5)}})
    train(session, data, steps=1)
    # The range was 127 * 0.5 on both sides; one hundredth of it is that of the data now.
    largest = data.abs().max()
    reach = 0.99 * 63.5 + 0.01 * largest
    ends = torch.stack([data.min(), data.max()]).abs()
    reach = torch.maximum(0.99 * 63.5 + 0.01 * ends[0], 0.99 * 63.5 + 0.01 * ends[1])
    assert torch.allclose(session.qparams()["0"]["_input_"].scale, reach / 127)


@pytest.mark.parametrize("algorithm", ["qat", "lsq", "lsq_plus"])
def test_frozen_scales_stay_whatever_is_trained(data, algorithm):
    session = attach(build(), algorithm)
    session.set_qparams({"0": all_given()["0"]}, freeze=True)
    session.calibrate([data])
    session.compress()
    before = session.qparams()["2"]["weight"].scale
    train(session, data)
    found = session.qparams()
    assert {float(one.scale) for one in found["0"].values()} == {0.5}
    assert not torch.equal(found["2"]["weight"].scale, before)
    assert not any(".0." in name for name in session.learned())


@pytest.mark.parametrize("algorithm", ["lsq", "lsq_plus"])
def test_learned_scales_get_their_value_in_place_and_are_learned_on(data, algorithm):
    session = attach(build(), algorithm)
    session.calibrate([data])
    session.compress()
    leaves = session.learned()
    session.set_qparams(all_given())
    assert all(session.learned()[name] is leaf for name, leaf in leaves.items())
    assert {leaf.item() for leaf in session.learned().values()} == {0.5}
    train(session, data)
    assert session.qparams()["0"]["weight"].scale != 0.5


@pytest.mark.parametrize("algorithm", ["lsq", "lsq_plus"])
@pytest.mark.parametrize("granularity", ["default", "per_channel", [1, 2]])
def test_given_scales_are_learned_without_calibration(data, algorithm, granularity):
    first = attach(build(), algorithm, granularity=granularity)
    first.calibrate([data])
    first.compress()
    session = attach(build(), algorithm, granularity=granularity)
    session.set_qparams(first.qparams())
    assert len(session.learned()) == 6
    train(session, data)
    session.compress()
    for module, targets in first.qparams().items():
        for target, qparams in targets.items():
            found = session.qparams()[module][target]
            assert torch.equal(found.scale.flatten(), qparams.scale.flatten())


def test_none_thaws_scales_so_that_training_moves_them_again(data):
    session = attach(build(), "lsq")
    session.set_qparams(all_given(), freeze=True)
    session.set_qparams(all_given())
    assert session.learned() == {}
    nothing = {"_input_": None, "weight": None, "_output_": None}
    session.set_qparams({"0": nothing, "2": nothing})
    session.set_qparams(all_given())
    assert len(session.learned()) == 6
    train(session, data)
    assert session.qparams()["0"]["weight"].scale != 0.5


@pytest.mark.parametrize("algorithm", ["ptq", "qat", "lsq"])
@pytest.mark.parametrize("freeze", [True, False])
def test_what_was_given_is_saved_and_goes_on_alike(data, tmp_path, algorithm, freeze):
    session = attach(build(), algorithm)
    session.set_qparams({"0": all_given()["0"]}, freeze=freeze)
    session.calibrate([data])
    session.compress()
    session.save(tmp_path / "saved")
    loaded = tersely.load_session(build(), tmp_path / "saved")
    assert torch.equal(loaded.model.eval()(data), session.model.eval()(data))
    for one in (session, loaded):
        train(one, data)
        one.calibrate([data])
        one.compress()
    assert torch.equal(loaded.model.eval()(data), session.model.eval()(data))
    given = loaded.qparams()["0"]["weight"].scale
    assert bool(given == 0.5) == (freeze or algorithm != "qat")  # whose range has moved on


def test_a_tied_weight_is_given_once_for_all_holders(data):
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = model[0].weight
    session = attach(model, target_names=["weight"])
    session.set_qparams({"0": {"weight": scale(0.25)}})
    assert torch.equal(model[0].weight, model[1].weight)
    assert bool((model[1].weight % 0.25 == 0).all())


def test_a_stage_that_begins_later_begins_with_what_was_given(data):
    stages = [
        {
            "pruning": {
                "algorithm": "level",
                "config_list": [{"op_types": ["Linear"], "sparse_ratio": 0.5}],
            },
            "until": 1,
        },
        {"quantization": {"algorithm": "ptq", "config_list": [ENTRY]}},
    ]
    session = tersely.attach(build(), {"stages": stages})
    session.set_qparams(all_given())
    session.compress()
    train(session, data, steps=1)
    assert {float(one.scale) for one in session.qparams()["0"].values()} == {0.5}


def test_weights_that_an_algorithm_would_solve_stay_as_they_are(data):
    model = build()
    session = attach(model, "gptq", target_names=["weight"])
    session.set_qparams({"0": {"weight": scale(0.25)}})
    session.calibrate([data])
    session.compress()
    assert torch.equal(dict(model.named_parameters())["0.weight"], build()[0].weight)
    assert not torch.equal(dict(model.named_parameters())["2.weight"], build()[2].weight)


def test_a_finished_or_suspended_session_takes_no_scales():
    session = attach(build())
    with (
        session.suspended(),
        pytest.raises(tersely.SessionError, match=r"set_qparams\(\) was called inside"),
    ):
        session.set_qparams(all_given())
    session.detach()
    with pytest.raises(tersely.SessionError, match=r"set_qparams\(\) needs an attached"):
        session.set_qparams(all_given())


@pytest.mark.parametrize("given", [5, [("0", {})], {"0": 5}])
def test_scales_in_another_form_are_refused(given):
    session = tersely.attach(
        torch.nn.Sequential(torch.nn.Linear(3, 2)),
        {"quantization": {"algorithm": "rtn", "config_list": [{"op_types": ["Linear"]}]}},
    )
    with pytest.raises(tersely.SessionError, match=r"set_qparams\(\) found a (int|list), expected"):
        session.set_qparams(given)
