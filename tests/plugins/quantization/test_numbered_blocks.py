"""Blocks of any shape: what each quantizer makes of them (rule G6.5)."""

import pytest
import torch
from torch import nn

import tersely


class Diagonals:
    def blocks(self, shape, target):
        rows, columns = torch.arange(shape[0])[:, None], torch.arange(shape[1])
        return tersely.Blocks(index=(columns - rows) % shape[1])


@pytest.fixture(autouse=True)
def diagonals(provide):
    reference = "tersely_numbered:Diagonals"
    info = tersely.GranularityInfo(name="toy_diagonals", implementation=reference)
    with provide("tersely_numbered", info, Diagonals=Diagonals):
        yield


def entry():
    return {
        "op_names": ["2"],
        "target_names": ["weight"],
        "quant_dtype": "int4",
        "granularity": "toy_diagonals",
    }


@pytest.fixture
def model():
    torch.manual_seed(0)
    # Square, so that scales of diagonals would broadcast along rows if their numbers were lost.
    return nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8))


@pytest.mark.parametrize("algorithm", ["ptq", "rtn", "gptq", "adaround"])
def test_integers_times_the_scale_of_their_block_are_the_weight(model, algorithm):
    data = torch.randn(16, 8)
    session = tersely.quantize(model, [entry()], algorithm=algorithm, data=[data])
    found = session.integer_weights()["2"]["weight"]
    scale = found.qparams.scale
    index = Diagonals().blocks((8, 8), None).index
    assert scale.shape == (8,)
    assert torch.allclose(found.values * scale[index], model[2].weight, atol=1e-6)


@pytest.mark.parametrize("algorithm", ["awq", "smoothquant"])
def test_factors_of_inputs_go_with_scales_of_blocks(model, algorithm):
    data = torch.randn(16, 8)
    session = tersely.quantize(model, [entry()], algorithm=algorithm, data=[data])
    found = session.integer_weights()["2"]["weight"]
    index = Diagonals().blocks((8, 8), None).index
    weight = found.values * found.qparams.scale[index]
    expected = model(data)
    inputs = model[1](model[0](data)) / (1 if found.input_scale is None else found.input_scale)
    assert torch.allclose(inputs @ weight.T + model[2].bias, expected, atol=1e-5)


@pytest.mark.parametrize("algorithm", ["qat", "lsq", "lsq_plus"])
def test_training_moves_the_scales_of_blocks(model, algorithm):
    stage = {"algorithm": algorithm, "config_list": [entry()]}
    session = tersely.attach(model, {"quantization": stage})
    session.calibrate([torch.randn(16, 8)])
    session.compress()
    before = session.qparams()["2"]["weight"].scale.clone()
    optimizer = torch.optim.SGD([*model.parameters(), *session.parameters()], 0.1)
    for _ in range(3):
        optimizer.zero_grad()
        model(torch.randn(16, 8)).square().mean().backward()
        optimizer.step()
        session.step()
    after = session.qparams()["2"]["weight"].scale
    assert after.shape == (8,)
    assert bool((after != before).any())


UNEVEN = [[0, 0, 0], [0, 0, 1]]
WEIGHT = [[0.25, -2.0, 0.5], [1.0, 0.75, -4.0]]


@pytest.fixture
def uneven(monkeypatch):
    blocks = tersely.Blocks(index=UNEVEN)
    monkeypatch.setattr(Diagonals, "blocks", lambda self, shape, target: blocks)
    model = nn.Sequential(nn.Identity(), nn.Identity(), nn.Linear(3, 2, bias=False))
    with torch.no_grad():
        model[2].weight.copy_(torch.tensor(WEIGHT))
    return model


@pytest.mark.parametrize("observer", ["histogram", "percentile", "mse"])
def test_observers_look_at_each_of_blocks_that_differ_in_size(uneven, observer):
    # What stands alone in a tensor of its own has the scale that it has as a block.
    alone = [nn.Linear(5, 1, bias=False), nn.Linear(1, 1, bias=False)]
    with torch.no_grad():
        alone[0].weight.copy_(torch.tensor([[0.25, -2.0, 0.5, 1.0, 0.75]]))
        alone[1].weight.fill_(-4.0)

    options = {"observer": observer}
    session = tersely.quantize(uneven, [entry()], algorithm="ptq", options=options)
    expected = tersely.quantize(
        nn.Sequential(*alone),
        [{**entry(), "op_names": ["0", "1"], "granularity": "default"}],
        algorithm="ptq",
        options=options,
    )

    found = session.qparams()["2"]["weight"].scale.tolist()
    assert found == [expected.qparams()[name]["weight"].scale.item() for name in ("0", "1")]


@pytest.mark.parametrize(
    ("algorithm", "scales"),
    # Of lsq twice the mean magnitude (4.5 / 5 and 4) over the root of the largest integer, 7. Of
    # lsq_plus the mean (0.1) and three deviations of 1.0794, and 4, over 2 ** 3.
    [("lsq", [1.8 / 7**0.5, 8 / 7**0.5]), ("lsq_plus", [(0.1 + 3 * 1.165**0.5) / 8, 0.5])],
)
def test_learned_scales_begin_with_each_of_blocks_that_differ_in_size(uneven, algorithm, scales):
    stage = {"algorithm": algorithm, "config_list": [entry()]}
    session = tersely.attach(uneven, {"quantization": stage})
    session.calibrate([torch.randn(4, 3)])
    session.compress()
    found = session.qparams()["2"]["weight"].scale
    assert found.tolist() == pytest.approx(scales, rel=1e-6)
