"""Averages of models in training: AveragedModel, by name, in order, soups; right, or refused."""

import copy

import pytest
import torch
from averages import DECAY, ByName, InOrder, WithBuffers, WithTorch, train
from torch import nn

import tersely

ENTRY = {
    "op_types": ["Linear"],
    "target_names": ["_input_", "weight"],
    "quant_dtype": "int4",
    "quant_scheme": "affine",
}
ALGORITHMS = ["qat", "ptq", "lsq", "lsq_plus", "dorefa"]


def network():
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 4))


def attached(algorithm, *, calibrated, granularity="default"):
    model = network()
    entry = {**ENTRY, "target_settings": {"weight": {"granularity": granularity}}}
    session = tersely.attach(
        model, {"quantization": {"algorithm": algorithm, "config_list": [entry]}}
    )
    if calibrated:
        session.calibrate([torch.randn(32, 8)])
        session.compress()
    return model, session


WAYS = [WithTorch, WithBuffers, ByName, InOrder]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("algorithm", "granularity"),
    [(name, "default") for name in ALGORITHMS]
    + [(name, "per_channel") for name in ALGORITHMS if name != "dorefa"],
)
def test_an_average_of_a_quantized_model_is_quantized(algorithm, granularity, way):
    model, session = attached(algorithm, calibrated=True, granularity=granularity)
    average = way(model)
    train(model, session, average)
    average.model.eval()
    rows = average.model[0].weight.detach().reshape(1 if granularity == "default" else 16, -1)
    assert all(row.unique().numel() <= 16 for row in rows)
    assert rows.isfinite().all()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_an_average_is_loaded_and_finished(algorithm, way):
    model, session = attached(algorithm, calibrated=True)
    average = way(model)
    train(model, session, average)
    x = torch.randn(5, 8)
    expected = average.model.eval()(x)
    model.load_state_dict(average.model.state_dict())
    torch.testing.assert_close(model.eval()(x), expected)
    for targets in session.qparams().values():
        for qparams in targets.values():
            assert qparams.zero_point.dtype == torch.int32
    with pytest.warns(UserWarning, match="stay instrumented"):
        session.finalize()
    torch.testing.assert_close(model.eval()(x), expected)


@pytest.mark.parametrize("way", WAYS)
def test_a_copy_made_before_the_first_range_averages_the_ranges_that_came(way):
    model, session = attached("qat", calibrated=False)
    average = way(model)
    scales = []

    class Recorder:
        def update(self, model):
            average.update(model)
            scales.append(session.qparams()["0"]["weight"].scale.clone())

    train(model, session, Recorder())
    weights = [DECAY ** (len(scales) - number) for number in range(len(scales))]
    expected = sum(w * s for w, s in zip(weights, scales, strict=True)) / sum(weights)
    if way is WithTorch:
        expected = scales[-1]
    levels = average.model.eval()[0].weight.detach() / expected
    torch.testing.assert_close(levels, levels.round(), atol=1e-3, rtol=0)
    model.load_state_dict(average.model.state_dict())
    torch.testing.assert_close(session.qparams()["0"]["weight"].scale, expected)


@pytest.mark.parametrize("calibrated", [False, True])
def test_a_copy_made_early_has_the_keys_of_the_model_later(calibrated):
    model, session = attached("qat", calibrated=calibrated)
    early = copy.deepcopy(model)
    train(model, session, WithTorch(model))
    assert [(name, one.shape, one.dtype) for name, one in early.named_buffers()] == [
        (name, one.shape, one.dtype) for name, one in model.named_buffers()
    ]


@pytest.mark.parametrize("algorithm", ["ptq", "dorefa", "qat"])
def test_scales_are_there_from_attach_on(algorithm):
    model, session = attached(algorithm, calibrated=False)
    early = {name: one.shape for name, one in model.state_dict().items()}
    session.calibrate([torch.randn(32, 8)])
    session.compress()
    assert {name: one.shape for name, one in model.state_dict().items()} == early


def test_a_model_computes_densely_before_it_has_scales():
    model, _ = attached("ptq", calibrated=False)
    x = torch.randn(3, 8)
    assert torch.equal(model.eval()(x), network().eval()(x))
    assert torch.equal(copy.deepcopy(model).eval()(x), network().eval()(x))


def test_the_soup_of_two_checkpoints_has_the_mean_of_their_scales():
    states, found = [], []
    for seed in (1, 2):
        model, session = attached("qat", calibrated=True)
        torch.manual_seed(seed)
        train(model, session, WithTorch(model))
        states.append(copy.deepcopy(model.state_dict()))
        found.append(session.qparams()["0"]["_input_"])
    model, session = attached("qat", calibrated=False)
    soup = {
        name: (value.double() + states[1][name].double()).div(2).to(value.dtype)
        for name, value in states[0].items()
    }
    model.load_state_dict(soup)
    qparams = session.qparams()["0"]["_input_"]
    torch.testing.assert_close(qparams.scale, (found[0].scale + found[1].scale) / 2)
    mean = (found[0].zero_point + found[1].zero_point) / 2
    assert torch.equal(qparams.zero_point, mean.round().int())


def test_an_average_that_takes_scales_below_zero_is_refused():
    model, _ = attached("ptq", calibrated=True)
    state = {
        name: -value if "scale" in name else value for name, value in model.state_dict().items()
    }
    with pytest.raises(tersely.SessionFileError, match=r"0\.weight: its scale is -"):
        model.load_state_dict(state)


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # torch's own
@pytest.mark.parametrize("training", [False, True])
def test_an_average_compiles_without_having_run(training):
    torch.compiler.reset()
    model, session = attached("qat", calibrated=False)
    average = WithBuffers(model)
    train(model, session, average)
    x = torch.randn(32, 8)
    compiled = torch.compile(average.model.train(training), fullgraph=True, backend="aot_eager")
    found = compiled(x)
    if not training:
        torch.testing.assert_close(found, average.model(x))
    assert found.isfinite().all()
