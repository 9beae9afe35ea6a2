"""AWQ on experts whose matrices lie in one parameter: each has the factors of its own rows."""

import pytest
import torch
from linear_experts import LinearExperts
from messages.sessions import DIVIDES_FACTORS, FOLDS_FACTORS
from torch import nn
from torch.nn import functional

import tersely
from tersely_export.safetensors_reader import read_stored

COUNT, WIDTH, INNER = 3, 8, 12
WEIGHTS = ["gate_up_proj", "down_proj"]


class FewExperts(nn.Module):
    """Gated experts, stacked."""

    def __init__(self, is_transposed=False, layout="halves", has_bias=False):
        super().__init__()
        self.num_experts, self.is_transposed, self.layout = COUNT, is_transposed, layout
        self.gate_up_proj = nn.Parameter(torch.randn(COUNT, 2 * INNER, WIDTH))
        self.down_proj = nn.Parameter(torch.randn(COUNT, WIDTH, INNER))
        self.gate_up_proj_bias = nn.Parameter(torch.randn(COUNT, 2 * INNER)) if has_bias else None
        if is_transposed:
            for name in WEIGHTS:
                value = getattr(self, name).detach().transpose(1, 2).contiguous()
                setattr(self, name, nn.Parameter(value))

    def matrix(self, name, expert):
        weight = getattr(self, name)[expert]
        return weight.T if self.is_transposed else weight

    def gated(self, made):
        gate, up = (
            made.chunk(2, -1) if self.layout == "halves" else made.unflatten(-1, (-1, 2)).unbind(-1)
        )
        return functional.silu(gate) * (up + 1 if self.layout == "every second, plus one" else up)

    def forward(self, x, chosen):
        out = torch.zeros_like(x)
        for expert in range(COUNT):
            rows = chosen == expert
            made = functional.linear(x[rows], self.matrix("gate_up_proj", expert))
            if self.gate_up_proj_bias is not None:
                made = made + self.gate_up_proj_bias[expert]
            hidden = self.gated(made)
            out[rows] = functional.linear(hidden, self.matrix("down_proj", expert))
        return out


class Mixture(nn.Module):
    """A router that looks at the sign of the first feature, and experts."""

    def __init__(self, experts, idle=None):
        super().__init__()
        self.norm, self.experts, self.idle = nn.LayerNorm(WIDTH), experts, idle

    def forward(self, x):
        chosen = (x.sum(1) * 7).long() % COUNT
        if self.idle is not None:
            chosen = torch.where(chosen == self.idle, (self.idle + 1) % COUNT, chosen)
        return self.experts(self.norm(x), chosen)


def stacked(idle=None, **options):
    torch.manual_seed(0)
    return Mixture(FewExperts(**options), idle)


def batches():
    generator = torch.Generator().manual_seed(1)
    sizes = torch.linspace(0.2, 4, WIDTH)
    return [torch.randn(48, WIDTH, generator=generator) * sizes for _ in range(2)]


def awq(model, *, granularity="per_channel", names=WEIGHTS, **options):
    entry = {"op_types": ["FewExperts"], "target_names": names, "quant_dtype": "int4"}
    if isinstance(model.experts, LinearExperts):
        entry |= {"op_types": ["Linear"], "target_names": ["weight"]}
    entry["granularity"] = granularity
    return tersely.quantize(
        model,
        [entry],
        algorithm="awq",
        options=options,
        data=[one.to(next(model.parameters()).dtype) for one in batches()],
    )


@pytest.mark.parametrize("granularity", ["default", "per_channel", {"group": 4}])
@pytest.mark.parametrize("sequential", [False, True])
def test_each_expert_is_scaled_like_a_linear_layer(granularity, sequential):
    model = stacked()
    reference = Mixture(LinearExperts(model.experts))

    awq(model, granularity=granularity, sequential=sequential)
    awq(reference, granularity=granularity, sequential=sequential)

    for name in WEIGHTS:
        factors = model.experts._buffers[f"_tersely_{name}_input_scale"]
        for expert, layer in enumerate(getattr(reference.experts, name)):
            torch.testing.assert_close(
                factors[expert], layer._buffers["_tersely_weight_input_scale"]
            )
            torch.testing.assert_close(getattr(model.experts, name)[expert], layer.weight)
        assert factors.std(0).max() > 0.01  # they are not the same for all


def test_transposed_matrices_are_scaled_alike():
    model, other = stacked(), stacked(is_transposed=True)

    awq(model)
    awq(other)

    for name in WEIGHTS:
        found = getattr(other.experts, name).transpose(1, 2)
        torch.testing.assert_close(found, getattr(model.experts, name))


@pytest.mark.filterwarnings("ignore:.*are rounded to nearest")
def test_an_expert_that_no_row_reached_keeps_factors_of_one():
    model, plain = stacked(idle=2), stacked()
    entry = {"op_types": ["FewExperts"], "target_names": WEIGHTS, "quant_dtype": "int4"}
    tersely.quantize(plain, [{**entry, "granularity": "per_channel"}], algorithm="rtn")

    awq(model)

    assert model.experts._buffers["_tersely_down_proj_input_scale"][2].eq(1).all()
    assert torch.equal(model.experts.down_proj[2], plain.experts.down_proj[2])


def test_factors_of_experts_are_saved_and_finished(tmp_path):
    model, x = stacked(), batches()[0]
    session = awq(model)
    session.save(tmp_path / "session")

    loaded = stacked()
    loaded.load_state_dict(model.state_dict(), strict=False)
    tersely.load_session(loaded, tmp_path / "session")
    expected = model(x)

    assert torch.equal(loaded(x), expected)
    torch.testing.assert_close(session.finalize()(x), expected)
    assert list(dict(model.named_buffers())) == []


def test_factors_of_experts_are_exported(tmp_path):
    model, x = stacked(), batches()[0]
    session = awq(model, names=["gate_up_proj"])
    expected = model(x)

    session.export("safetensors", tmp_path / "model.safetensors")

    found = read_stored(tmp_path / "model.safetensors")
    again = stacked()
    again.load_state_dict({name: torch.as_tensor(found[name]) for name in again.state_dict()})
    torch.testing.assert_close(again(x), expected)


def remarks(session):
    return [one.text for one in session.report().remarks if one.kind == "factors"]


@pytest.mark.parametrize("granularity", ["per_channel", {"group": 4}])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"is_transposed": True},
        {"has_bias": True},
        {"layout": "every second"},
        {"layout": "every second", "has_bias": True, "is_transposed": True},
    ],
)
def test_factors_of_what_is_gated_go_into_the_rows_of_the_same_expert(options, granularity):
    model = stacked(**options).double()
    x = batches()[0].double()
    session = awq(model, granularity=granularity)
    simulated = model(x).detach()

    assert remarks(session) == [
        f"experts.down_proj: {FOLDS_FACTORS} rows of experts.gate_up_proj",
        (
            f"experts.gate_up_proj: finalize() {DIVIDES_FACTORS}, because each expert has its own "
            "factors, and no rows of its matrices produce the input"
        ),
    ]
    session.finalize()

    torch.testing.assert_close(model(x), simulated, rtol=1e-6, atol=1e-6)
    stored = session.integer_weights()["experts"]["down_proj"]
    assert stored.input_scale is None
    assert torch.equal(stored.dequantize(), model.experts.down_proj)


def test_rows_that_are_not_only_gated_take_no_factors():
    model = stacked(layout="every second, plus one")
    session = awq(model)
    assert all(DIVIDES_FACTORS in one for one in remarks(session))


def test_experts_with_three_matrices_fold_into_the_one_that_is_gated():
    class ThreeExperts(nn.Module):
        def __init__(self):
            super().__init__()
            self.w1, self.w3 = (nn.Parameter(torch.randn(COUNT, INNER, WIDTH)) for _ in range(2))
            self.w2 = nn.Parameter(torch.randn(COUNT, WIDTH, INNER))

        def forward(self, x, chosen):
            out = torch.zeros_like(x)
            for expert in range(COUNT):
                rows = x[chosen == expert]
                gate, up = rows @ self.w1[expert].T, rows @ self.w3[expert].T
                out[chosen == expert] = (functional.silu(gate) * up) @ self.w2[expert].T
            return out

    torch.manual_seed(0)
    model = Mixture(ThreeExperts())
    entry = {"op_types": ["ThreeExperts"], "target_names": ["w2"], "quant_dtype": "int4"}
    session = tersely.quantize(
        model, [{**entry, "granularity": "per_channel"}], algorithm="awq", data=batches()
    )
    assert remarks(session) == [f"experts.w2: {FOLDS_FACTORS} experts.w3"]
    simulated = model(batches()[0]).detach()
    session.finalize()
    torch.testing.assert_close(model(batches()[0]), simulated, rtol=1e-4, atol=1e-4)
