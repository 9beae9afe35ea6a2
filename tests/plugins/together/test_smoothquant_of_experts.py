"""SmoothQuant on stacked experts: factors of their one input, and of each expert's own rows."""

import pytest
import torch
from linear_experts import LinearExperts
from torch import nn
from torch.nn import functional

import tersely
from tersely.contracts import MergesObservations
from tersely.engine.observation.sums import observed_together, put_of_expert

COUNT, WIDTH = 3, 8
WEIGHTS = ["gate_up_proj", "down_proj"]


class SquareExperts(nn.Module):
    """Gated experts whose inner width is that of their input, as in GPT-OSS."""

    def __init__(self, is_transposed=False, reads_input_elsewhere=False):
        super().__init__()
        self.num_experts, self.is_transposed = COUNT, is_transposed
        self.reads_input_elsewhere = reads_input_elsewhere
        gate_up, down = torch.randn(COUNT, 2 * WIDTH, WIDTH), torch.randn(COUNT, WIDTH, WIDTH)
        turned = [
            one.transpose(1, 2).contiguous() if is_transposed else one for one in (gate_up, down)
        ]
        self.gate_up_proj, self.down_proj = map(nn.Parameter, turned)

    def matrix(self, name, expert):
        weight = getattr(self, name)[expert]
        return weight.T if self.is_transposed else weight

    def forward(self, x, chosen):
        out = x.clone() if self.reads_input_elsewhere else torch.zeros_like(x)
        for expert in range(COUNT):
            rows = chosen == expert
            gate, up = functional.linear(x[rows], self.matrix("gate_up_proj", expert)).chunk(2, -1)
            out[rows] += functional.linear(
                functional.silu(gate) * up, self.matrix("down_proj", expert)
            )
        return out


class Mixture(nn.Module):
    """A router, and experts that read the same values as the router."""

    def __init__(self, experts, idle=None):
        super().__init__()
        self.norm, self.experts, self.idle = nn.LayerNorm(WIDTH), experts, idle
        self.router = nn.Linear(WIDTH, COUNT)

    def forward(self, x):
        x = self.norm(x)
        scores = self.router(x)
        if self.idle is not None:
            scores = scores.index_fill(1, torch.tensor([self.idle]), -100.0)
        return self.experts(x, scores.argmax(1))


def stacked(idle=None, **options):
    torch.manual_seed(0)
    return Mixture(SquareExperts(**options), idle)


def batches():
    generator = torch.Generator().manual_seed(1)
    sizes = torch.linspace(0.05, 6, WIDTH)
    return [torch.randn(48, WIDTH, generator=generator) * sizes for _ in range(2)]


def smoothed(model, *, names=(*WEIGHTS, "_input_"), algorithm="smoothquant", **options):
    entry = {"op_types": ["SquareExperts"], "target_names": list(names)}
    if isinstance(model.experts, LinearExperts):
        entry = {"op_names_re": ["experts"], "op_types": ["Linear"], "target_names": ["weight"]}
    entry |= {"granularity": "per_channel"}
    if "_input_" in names:
        entry["target_settings"] = {"_input_": {"granularity": "default"}}
    return tersely.quantize(model, [entry], algorithm=algorithm, options=options, data=batches())


def factors_of(model, name):
    return model.experts._buffers[f"_tersely_{name}_input_scale"]


def by_hand(inputs, weights):
    """Equation 4 with alpha 0.5, divided by the mean of its ends as a ratio."""
    found = (inputs / weights).sqrt()
    return found / (found.min() * found.max()).sqrt()


@pytest.mark.parametrize("alpha", [0.5, "auto"])
def test_without_quantized_inputs_each_expert_is_scaled_like_a_linear_layer(alpha):
    model = stacked()
    reference = Mixture(LinearExperts(model.experts))
    reference.router.load_state_dict(model.router.state_dict())

    smoothed(model, names=WEIGHTS, alpha=alpha)
    smoothed(reference, names=WEIGHTS, alpha=alpha)

    for name in WEIGHTS:
        for expert, layer in enumerate(getattr(reference.experts, name)):
            expected = layer._buffers["_tersely_weight_input_scale"]
            torch.testing.assert_close(factors_of(model, name)[expert], expected)
            torch.testing.assert_close(getattr(model.experts, name)[expert], layer.weight)


@pytest.mark.parametrize("is_transposed", [False, True])
def test_factors_of_a_quantized_input_are_those_of_all_experts_together(is_transposed):
    model = stacked(is_transposed=is_transposed)
    turned = model.experts.gate_up_proj.detach().clone()
    weights = turned.transpose(1, 2) if is_transposed else turned
    inputs = torch.cat([model.norm(one) for one in batches()]).detach()
    expected = by_hand(inputs.abs().amax(0), weights.abs().amax((0, 1)))

    smoothed(model)

    torch.testing.assert_close(factors_of(model, "gate_up_proj"), expected)
    scaled = weights * expected
    scale = scaled.abs().amax(2, keepdim=True) / 127
    rounded = (scaled / scale).round() * scale
    found = model.experts.gate_up_proj
    torch.testing.assert_close(found.transpose(1, 2) if is_transposed else found, rounded)
    assert factors_of(model, "down_proj").shape == (COUNT, WIDTH)


def test_the_input_is_divided_once_and_its_range_is_that_of_divided_values():
    model = stacked()
    inputs = torch.cat([model.norm(one) for one in batches()]).detach()

    session = smoothed(model)

    divided = inputs / factors_of(model, "gate_up_proj")
    scale = session.qparams()["experts"]["_input_"].scale
    torch.testing.assert_close(scale * 127, divided.abs().max())


def test_divided_inputs_bring_outputs_closer():
    x = torch.cat(batches())
    model, rounded = stacked(), stacked()
    with torch.no_grad():
        for one in (model, rounded):
            one.norm.weight[0] = 60
            one.experts.gate_up_proj[:, :, 0] /= 60
    dense = model(x).detach()

    smoothed(model)
    smoothed(rounded, algorithm="rtn")

    assert (model(x) - dense).norm() < 0.5 * (rounded(x) - dense).norm()


@pytest.mark.filterwarnings("ignore:.*are rounded to nearest")
def test_an_expert_that_no_row_reached_takes_the_factors_of_the_input_too():
    model = stacked(idle=2)
    weight = model.experts.gate_up_proj[2].detach().clone()

    smoothed(model)

    scaled = weight * factors_of(model, "gate_up_proj")
    scale = scaled.abs().amax(1, keepdim=True) / 127
    torch.testing.assert_close(model.experts.gate_up_proj[2], (scaled / scale).round() * scale)


def test_an_input_that_something_else_reads_is_not_divided():
    model = stacked(reads_input_elsewhere=True)
    smoothed(model)
    assert factors_of(model, "gate_up_proj").shape == (COUNT, WIDTH)


@pytest.mark.filterwarnings("ignore:.*stay instrumented")
def test_factors_of_a_shared_input_are_saved_and_finished(tmp_path):
    model, x = stacked(), batches()[0]
    session = smoothed(model)
    expected = model(x)
    session.save(tmp_path / "session")

    loaded = stacked()
    tersely.load_session(loaded, tmp_path / "session")

    assert torch.equal(loaded(x), expected)
    torch.testing.assert_close(session.finalize()(x), expected)


def test_a_second_calibration_sees_the_input_as_it_comes():
    model = stacked()
    session = smoothed(model)
    factors = factors_of(model, "gate_up_proj").clone()
    x = batches()[0]
    first = model(x).detach()

    session.calibrate(batches())
    session.compress()

    # Not the same: what is scaled the second time was rounded the first time.
    torch.testing.assert_close(factors_of(model, "gate_up_proj"), factors, rtol=0.02, atol=0)
    assert (model(x) - first).norm() < 0.02 * first.norm()


class Extremes(MergesObservations):
    """Keeps the largest value."""

    def merge(self, before, part):
        return {"high": torch.maximum(before["high"], part["high"])}


def test_observations_of_experts_merge_as_their_algorithm_says():
    total = {"high": torch.zeros(2, 2)}
    for expert, high in ((0, [1.0, -5.0]), (0, [-2.0, 3.0]), (1, [-4.0, -1.0])):
        put_of_expert(total, expert, {"high": torch.tensor(high)}, Extremes())

    assert total["high"].tolist() == [[1.0, 3.0], [-4.0, -1.0]]
    parts = [{"high": one} for one in (*total["high"], torch.zeros(2))]
    assert observed_together(parts, Extremes())["high"].tolist() == [1.0, 3.0]
    assert observed_together(parts, object())["high"].tolist() == [-3.0, 2.0]
