"""What is saved of a finished model is right without the factors of its inputs."""

import copy

import pytest
import torch
from torch import nn

import tersely
from tersely.session.finalizing.baking import FinalizeWarning

KINDS = {
    "linear": (lambda: nn.Linear(8, 6), (64, 8), -1),
    "without_bias": (lambda: nn.Linear(8, 6, bias=False), (64, 8), -1),
    "conv": (lambda: nn.Conv2d(8, 6, 3), (4, 8, 6, 6), 1),
    "grouped": (lambda: nn.Conv2d(8, 6, 3, groups=2), (4, 8, 6, 6), 1),
    "transposed": (lambda: nn.ConvTranspose2d(8, 6, 3), (4, 8, 6, 6), 1),
}


def make(kind):
    torch.manual_seed(0)
    build, shape, dim = KINDS[kind]
    inputs = torch.randn(shape)
    outliers = torch.ones(8)
    outliers[::3] = 30
    sizes = [8 if one == dim % len(shape) else 1 for one in range(len(shape))]
    return nn.Sequential(build()), inputs * outliers.view(sizes)


def finished(model, inputs, algorithm, *, targets=("_input_", "weight")):
    entry = {"op_names": ["0"], "target_names": list(targets), "quant_dtype": "int8"}
    session = tersely.quantize(model, [entry], algorithm=algorithm, data=[inputs])
    simulated = model(inputs).detach()
    if "_input_" in targets:
        with pytest.warns(FinalizeWarning):
            session.finalize()
    else:
        session.finalize()
    return simulated


@pytest.mark.parametrize("algorithm", ["smoothquant", "awq"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_saved_weights_are_right_in_a_plain_model(kind, algorithm):
    model, inputs = make(kind)
    wanted = model(inputs).detach()
    simulated = finished(model, inputs, algorithm)

    plain = nn.Sequential(KINDS[kind][0]())
    plain.load_state_dict({key: model.state_dict()[key] for key in plain.state_dict()})

    torch.testing.assert_close(model(inputs), simulated, rtol=1e-5, atol=1e-4)
    assert (plain(inputs) - wanted).norm() < 0.03 * wanted.norm()


@pytest.mark.parametrize("algorithm", ["smoothquant", "awq"])
def test_what_shares_an_input_is_right_in_a_plain_model(algorithm):
    class Heads(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.LayerNorm(8)
            self.query, self.key = nn.Linear(8, 8), nn.Linear(8, 8)

        def forward(self, x):
            x = self.norm(x)
            return self.query(x) + self.key(x)

    torch.manual_seed(0)
    model, inputs = Heads(), torch.randn(64, 8)
    model.norm.weight.data[::3] = 30
    wanted = model(inputs).detach()
    entry = {"op_types": ["Linear"], "target_names": ["_input_", "weight"]}
    session = tersely.quantize(model, [entry], algorithm=algorithm, data=[inputs])
    with pytest.warns(FinalizeWarning):
        session.finalize()

    plain = Heads()
    plain.load_state_dict({key: model.state_dict()[key] for key in plain.state_dict()})

    assert (plain(inputs) - wanted).norm() < 0.03 * wanted.norm()
    assert (model(inputs) - wanted).norm() < 0.03 * wanted.norm()


def test_weights_alone_leave_a_plain_model():
    model, inputs = make("linear")
    simulated = finished(model, inputs, "awq", targets=("weight",))

    assert type(model[0]) is nn.Linear
    assert torch.equal(model(inputs), simulated)
    assert not [name for name, _ in model.named_buffers()]


def test_a_half_precision_model_is_finished_in_its_precision():
    model, inputs = make("linear")
    model, inputs = model.bfloat16(), inputs.bfloat16()
    wanted = model(inputs).detach().float()
    finished(model, inputs, "smoothquant")

    found = model(inputs)

    assert found.dtype == torch.bfloat16
    assert (found.float() - wanted).norm() < 0.03 * wanted.norm()


class Shuffled(nn.Module):
    """Puts the channels between two layers in another order."""

    def __init__(self, name, order):
        super().__init__()
        torch.manual_seed(0)
        self.order, self.name = order, name
        self.first = nn.Linear(6, len(order))
        self.add_module(name, nn.Linear(len(order), 3))
        with torch.no_grad():
            self.first.weight.mul_(torch.linspace(0.1, 9, len(order))[:, None])

    def forward(self, x):
        return getattr(self, self.name)(self.first(x)[:, self.order])


@pytest.mark.parametrize("number", range(6))
@pytest.mark.parametrize("order", [[1, 0], [0, 2, 1, 3], [0, 2, 1, 3, 4, 5, 7, 6]])
def test_no_layer_takes_factors_of_channels_in_another_order(number, order):
    model = Shuffled(f"layer{number}", order)
    x = torch.randn(32, 6, generator=torch.Generator().manual_seed(3))
    entry = {"op_names": [f"layer{number}"], "target_names": ["weight", "_input_"]}
    session = tersely.quantize(model, [entry], algorithm="smoothquant", data=[x])
    expected = model(x)

    with pytest.warns(FinalizeWarning):
        finished = session.finalize()
    torch.testing.assert_close(finished(x), expected)


@pytest.mark.parametrize("other", range(1, 12))
def test_no_layer_takes_factors_where_two_of_many_channels_change_places(other):
    order = list(range(12))
    order[0], order[other] = other, 0
    model = Shuffled("layer0", order)
    x = torch.randn(32, 6, generator=torch.Generator().manual_seed(3))
    entry = {"op_names": ["layer0"], "target_names": ["weight", "_input_"]}
    session = tersely.quantize(model, [entry], algorithm="smoothquant", data=[x])
    expected = model(x)

    with pytest.warns(FinalizeWarning):
        finished = session.finalize()
    torch.testing.assert_close(finished(x), expected)


class Summed(nn.Module):
    """Two layers make an input by their sum, which two others read, one of them activated."""

    def __init__(self, name, channels):
        super().__init__()
        sizes = [(6, channels), (6, channels), (channels, 3), (channels, 3)]
        self.name = name
        self.add_module(name, nn.ModuleList(nn.Linear(*size) for size in sizes))

    def forward(self, x):
        first, second, third, fourth = getattr(self, self.name)
        total = first(x) + second(x)
        return torch.cat([third(total), fourth(total.relu())], -1)


@pytest.mark.parametrize("seed", [1, 3, 6])
@pytest.mark.parametrize("channels", [1, 2])
def test_no_layer_takes_factors_of_a_sum_in_which_it_is_one_of_two(seed, channels):
    torch.manual_seed(seed)
    model = Summed(f"parts{seed}", channels)
    x = torch.randn(32, 6, generator=torch.Generator().manual_seed(3))
    entry = {
        "op_names": [f"parts{seed}.2", f"parts{seed}.3"],
        "target_names": ["weight", "_input_"],
    }
    session = tersely.quantize(model, [entry], algorithm="smoothquant", data=[x])
    expected = model(x)

    with pytest.warns(FinalizeWarning):
        finished = session.finalize()
    torch.testing.assert_close(finished(x), expected)


def test_a_copied_session_finds_in_its_own_model_what_makes_inputs():
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 4)), torch.randn(32, 8)
    entry = {"op_types": ["Linear"], "target_names": ["weight", "_input_"]}
    recipe = {"quantization": {"algorithm": "smoothquant", "config_list": [entry]}}
    session = tersely.attach(model, recipe)
    session.calibrate([x])
    twin = copy.deepcopy(session)

    found = []
    for one in (session, twin):
        one.compress()
        with pytest.warns(FinalizeWarning):
            found.append(one.finalize())

    assert found[1] is not model
    assert not torch.equal(found[1][0].weight, torch.ones(8))
    assert torch.equal(found[1](x), found[0](x))


BUFFER = "_tersely_weight_input_scale"


def sharing():
    torch.manual_seed(0)
    first, second = nn.Linear(8, 4), nn.Linear(8, 4)

    class Pair(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = first, second

        def forward(self, x):
            return self.first(x) + self.second(x)

    entry = {"op_types": ["Linear"], "target_names": ["weight"]}
    recipe = {"quantization": {"algorithm": "smoothquant", "config_list": [entry]}}
    return tersely.attach(Pair(), recipe)


def test_weights_that_share_an_input_share_its_factors_after_saving_and_loading():
    session, twin, x = sharing(), sharing(), torch.randn(32, 8)
    session.calibrate([x])
    twin.restore(*session.state())

    session.compress()
    twin.compress()

    assert torch.equal(twin.model(x), session.model(x))
    factors = [twin.model.state_dict()[f"{name}.{BUFFER}"] for name in ("first", "second")]
    assert torch.equal(*factors)


def test_a_weight_whose_observations_were_not_saved_shares_nothing_after_loading():
    session, twin = sharing(), sharing()
    session.calibrate([torch.randn(32, 8)])
    tensors, data = session.state()

    twin.restore({key: one for key, one in tensors.items() if "second" not in key}, data)

    twin.calibrate([torch.randn(32, 8)])
    twin.compress()
    assert twin.is_compressed
