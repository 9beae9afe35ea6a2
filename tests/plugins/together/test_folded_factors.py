"""Factors of inputs folded into what makes these inputs, and where that cannot be (rule Q4.5)."""

import copy
import warnings

import pytest
import torch
from messages.sessions import DIVIDES_FACTORS, FOLDS_FACTORS, SHARED_SCALE
from torch import nn

import tersely

INT8 = {"quant_dtype": "int8", "granularity": "per_channel"}


class Attention(nn.Module):
    """Heads of width 4 that share keys and values where there are fewer of these."""

    def __init__(self, heads=2, shared=2):
        super().__init__()
        self.q, self.k = nn.Linear(8, heads * 4), nn.Linear(8, shared * 4)
        self.v, self.o = nn.Linear(8, shared * 4), nn.Linear(heads * 4, 8)

    def forward(self, x):
        q, k, v = (
            one(x).unflatten(-1, (-1, 4)).transpose(1, 2) for one in (self.q, self.k, self.v)
        )
        times = q.shape[1] // k.shape[1]
        k, v = k.repeat_interleave(times, 1), v.repeat_interleave(times, 1)
        found = nn.functional.scaled_dot_product_attention(q, k, v)
        return self.o(found.transpose(1, 2).flatten(2))


class Gated(nn.Module):
    def __init__(self):
        super().__init__()
        self.gate, self.up, self.down = nn.Linear(8, 12), nn.Linear(8, 12), nn.Linear(12, 8)

    def forward(self, x):
        return self.down(nn.functional.silu(self.gate(x)) * self.up(x))


class Block(nn.Module):
    def __init__(self, norm=nn.LayerNorm, shared=2):
        super().__init__()
        self.norm1, self.norm2 = norm(8), norm(8)
        self.attention, self.mlp = Attention(shared=shared), Gated()

    def forward(self, x):
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class OffsetNorm(nn.Module):
    """Multiplies with 1 + weight, as Gemma does."""

    def __init__(self, size):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(size) / 4)

    def forward(self, x):
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6) * (1 + self.weight)


def seeded(build, *args, **kwargs):
    torch.manual_seed(0)
    model = build(*args, **kwargs).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name and parameter.ndim == 1:
                parameter.add_(0.3 * torch.randn_like(parameter))
                parameter[::3] *= 8
    return model


def tokens():
    return torch.randn(4, 5, 8, generator=torch.Generator().manual_seed(1))


def entry(targets=("weight",), types=("Linear",), **keys):
    found = {"op_types": list(types), "target_names": list(targets), **INT8, **keys}
    if "_input_" in targets:
        found["target_settings"] = {"_input_": {"granularity": "default"}}
    return found


def quantized(model, inputs, *, algorithm="awq", **keys):
    return tersely.quantize(model, [entry(**keys)], algorithm=algorithm, data=[inputs])


def remarks(session):
    return [one.text for one in session.report().remarks if one.kind == "factors"]


def finished(session):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", tersely.session.finalizing.baking.FinalizeWarning)
        return session.finalize()


def is_on_grid(model, session, module):
    stored = session.integer_weights()[module]["weight"]
    weight = model.get_submodule(module).weight
    return stored.input_scale is None and torch.equal(stored.dequantize(), weight)


def test_a_norm_is_divided_by_the_factors_and_the_weight_keeps_them():
    model = seeded(lambda: nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 6)))
    model[0].bias.data.uniform_(-1, 1)
    session = quantized(model, tokens())
    weight, bias = (one.detach().clone() for one in (model[0].weight, model[0].bias))
    factors = session.integer_weights()["1"]["weight"].input_scale
    integers = session.integer_weights()["1"]["weight"].values
    scale = session.qparams()["1"]["weight"].scale
    session.finalize()

    assert not torch.equal(factors, torch.ones(8))
    torch.testing.assert_close(model[0].weight.data, weight / factors)
    torch.testing.assert_close(model[0].bias.data, bias / factors)
    assert torch.equal(model[1].weight.data, integers * scale)


@pytest.mark.parametrize("algorithm", ["awq", "smoothquant"])
@pytest.mark.parametrize("targets", [("weight",), ("_input_", "weight")])
@pytest.mark.parametrize("norm", [nn.LayerNorm, nn.RMSNorm, OffsetNorm])
def test_a_model_of_its_own_class_computes_what_the_session_did(norm, targets, algorithm):
    model, inputs = seeded(Block, norm), tokens()
    wanted = model(inputs).detach()
    keys = list(model.state_dict())
    session = quantized(model, inputs, algorithm=algorithm, targets=targets)
    simulated = model(inputs).detach()
    finished(session)

    torch.testing.assert_close(model(inputs), simulated, rtol=1e-4, atol=1e-4)
    plain = Block(norm)
    plain.load_state_dict({key: model.state_dict()[key] for key in keys}, strict=True)
    found = plain(inputs)
    if targets == ("weight",):
        torch.testing.assert_close(found, simulated, rtol=1e-4, atol=1e-4)
    assert (found - wanted).norm() < 0.02 * wanted.norm()
    for name in ("attention.q", "attention.v", "attention.o", "mlp.gate", "mlp.up", "mlp.down"):
        assert is_on_grid(model, session, name)


def test_the_report_says_what_is_folded_where():
    session = quantized(seeded(Block), tokens())

    found = remarks(session)
    assert found == [
        f"attention.q.weight, attention.k.weight, attention.v.weight: {FOLDS_FACTORS} norm1",
        f"attention.o.weight: {FOLDS_FACTORS} attention.v",
        f"mlp.gate.weight, mlp.up.weight: {FOLDS_FACTORS} norm2",
        f"mlp.down.weight: {FOLDS_FACTORS} mlp.up",
    ]
    session.finalize()
    assert remarks(session) == found


def test_trials_leave_no_trace():
    model, inputs = seeded(Block), tokens()
    before = copy.deepcopy(model.state_dict())
    session = quantized(model, inputs)
    session.detach()

    assert all(torch.equal(model.state_dict()[key], value) for key, value in before.items())
    assert not any(one._forward_hooks or one._forward_pre_hooks for one in model.modules())


def test_values_that_several_heads_share_take_factors_that_are_equal_for_these():
    model, inputs = seeded(Block, shared=1), tokens()
    session = quantized(model, inputs)
    simulated = model(inputs).detach()

    assert f"attention.o.weight: {FOLDS_FACTORS} attention.v" in remarks(session)
    session.finalize()
    torch.testing.assert_close(model(inputs), simulated, rtol=1e-4, atol=1e-4)


class PostNorm(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.fc = nn.LayerNorm(8), nn.Linear(8, 8)

    def forward(self, x):
        x = self.norm(x)
        return x + self.fc(x)


def test_what_something_else_reads_stays_as_it_is():
    model, inputs = seeded(PostNorm), tokens()
    norm = model.norm.weight.detach().clone()
    session = quantized(model, inputs)
    simulated = model(inputs).detach()

    assert remarks(session) == [
        (
            f"fc.weight: finalize() {DIVIDES_FACTORS}, because something else reads their input "
            "as well"
        )
    ]
    session.finalize()
    assert torch.equal(model.norm.weight.data, norm)
    torch.testing.assert_close(model(inputs), simulated)
    stored = session.integer_weights()["fc"]["weight"]
    assert torch.equal(stored.dequantize(), model.fc.weight)


def test_a_weight_that_is_left_out_reads_the_input_too():
    model, inputs = seeded(Block), tokens()
    found = entry(exclude_op_names=["attention.k"])
    session = tersely.quantize(model, [found], algorithm="awq", data=[inputs])

    assert not any("norm1" in text for text in remarks(session))
    assert any("norm2" in text for text in remarks(session))


def convolutions():
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 4, 3),
        nn.ReLU(), nn.Conv2d(4, 2, 1),
    )  # fmt: skip


IMAGES = torch.randn(2, 3, 12, 12, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize("algorithm", ["awq", "smoothquant"])
def test_factors_go_through_what_keeps_them(algorithm):
    model = seeded(convolutions)
    session = quantized(model, IMAGES, algorithm=algorithm, types=["Conv2d"])
    simulated = model(IMAGES).detach()

    assert [text.split("into ")[-1] for text in remarks(session)[:2]] == ["1", "4"]
    session.finalize()
    torch.testing.assert_close(model(IMAGES), simulated, rtol=1e-4, atol=1e-5)
    assert is_on_grid(model, session, "4")
    assert is_on_grid(model, session, "6")


def test_quantized_rows_take_factors_into_their_scales():
    model = seeded(lambda: nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4)))
    session = quantized(model, tokens())
    before = session.qparams()["0"]["weight"].scale
    integers = session.integer_weights()["0"]["weight"].values
    factors = session.integer_weights()["2"]["weight"].input_scale
    session.finalize()

    torch.testing.assert_close(session.qparams()["0"]["weight"].scale, before / factors[:, None])
    assert torch.equal(session.integer_weights()["0"]["weight"].values, integers)


def test_rows_that_share_a_scale_cannot():
    model = seeded(lambda: nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 8), nn.Linear(8, 4)))
    session = quantized(model, tokens(), granularity="default")
    session.finalize()

    assert remarks(session) == [
        f"1.weight: {FOLDS_FACTORS} 0",
        (
            f"2.weight: finalize() {DIVIDES_FACTORS}, because 1.weight produces it, but "
            f"{SHARED_SCALE}; granularity: per_channel gives each its own"
        ),
    ]
    assert is_on_grid(model, session, "1")


def test_an_output_that_is_quantized_on_the_way_keeps_its_scale():
    model = seeded(lambda: nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4)))
    recipe = {
        "quantization": [
            {"algorithm": "awq", "config_list": [entry()]},
            {
                "algorithm": "ptq",
                "config_list": [{"op_types": ["ReLU"], "target_names": ["_output_"]}],
            },
        ]
    }
    session = tersely.attach(model, recipe)
    session.calibrate([tokens()])
    session.compress()

    assert remarks(session)[-1] == (
        f"2.weight: finalize() {DIVIDES_FACTORS}, because an output between them and what "
        "produces their input is quantized"
    )


def test_a_norm_that_is_folded_itself_takes_no_factors():
    model = seeded(convolutions)
    recipe = {
        "quantization": [
            {
                "algorithm": "awq",
                "config_list": [{"op_names": ["4"], "target_names": ["weight"], **INT8}],
            },
            {
                "algorithm": "ptq",
                "config_list": [
                    {"op_names": ["0"], "target_names": ["weight"], "fuse_names": [["0", "1", "2"]]}
                ],
            },
        ]
    }
    session = tersely.attach(model, recipe)
    session.calibrate([IMAGES])
    session.compress()
    simulated = model(IMAGES).detach()

    assert remarks(session) == [
        (
            f"4.weight: finalize() {DIVIDES_FACTORS}, because a module that fuse_names folds "
            "produces it"
        )
    ]
    session.finalize()
    torch.testing.assert_close(model(IMAGES), simulated, rtol=1e-4, atol=1e-5)


def test_inputs_that_are_all_zero_tell_nothing():
    model = seeded(lambda: nn.Sequential(nn.Linear(8, 8, bias=False), nn.ReLU(), nn.Linear(8, 4)))
    session = tersely.quantize(
        model, [entry()], algorithm="awq", data=[torch.zeros(1, 8), tokens()[0]]
    )

    assert remarks(session)[-1] == (
        f"2.weight: finalize() {DIVIDES_FACTORS}, because their input was zero in the first "
        "batch of calibration"
    )


def test_a_model_that_draws_numbers_tells_nothing():
    class Noisy(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.fc = nn.LayerNorm(8), nn.Linear(8, 4)

        def forward(self, x):
            return self.fc(self.norm(x + torch.randn_like(x)))

    session = quantized(seeded(Noisy), tokens())

    assert remarks(session) == [
        (
            f"fc.weight: finalize() {DIVIDES_FACTORS}, because the model computes different "
            "outputs in every call"
        )
    ]


def test_a_saved_session_folds_where_it_would_have(tmp_path):
    model, inputs = seeded(Block), tokens()
    twin = copy.deepcopy(model)
    session = quantized(model, inputs)
    session.save(tmp_path / "session")
    loaded = tersely.load_session(twin, tmp_path / "session")
    session.finalize()
    loaded.finalize()

    assert all(torch.equal(one, twin.state_dict()[key]) for key, one in model.state_dict().items())


def test_a_block_that_is_quantized_after_the_one_before_folds_too():
    model, inputs = seeded(lambda: nn.Sequential(Block(), Block())), tokens()
    session = tersely.quantize(
        model, [entry()], algorithm="awq", options={"sequential": True}, data=[inputs]
    )
    simulated = model(inputs).detach()
    session.finalize()

    torch.testing.assert_close(model(inputs), simulated, rtol=1e-4, atol=1e-4)
    assert is_on_grid(model, session, "0.attention.q")
    assert is_on_grid(model, session, "1.mlp.down")


def test_compressing_again_folds_the_factors_of_now():
    model, inputs = seeded(Block), tokens()
    session = quantized(model, inputs)
    session.calibrate([inputs[:2]])
    session.compress()
    simulated = model(inputs).detach()
    session.finalize()

    torch.testing.assert_close(model(inputs), simulated, rtol=1e-4, atol=1e-4)


def test_masked_weights_stay_zero_on_the_grid():
    model, inputs = seeded(Block), tokens()
    recipe = {
        "pruning": {
            "algorithm": "level",
            "config_list": [{"op_types": ["Linear"], "sparse_ratio": 0.5}],
        },
        "quantization": {"algorithm": "awq", "config_list": [entry()]},
    }
    session = tersely.attach(model, recipe)
    session.calibrate([inputs])
    session.compress()
    simulated, masks = model(inputs).detach(), session.masks()
    session.finalize()

    torch.testing.assert_close(model(inputs), simulated, rtol=1e-4, atol=1e-4)
    assert not model.mlp.up.weight[~masks["mlp.up"]["weight"]].any()


def test_a_half_precision_model_stays_on_the_grid():
    model = seeded(lambda: nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 6))).bfloat16()
    inputs = tokens().bfloat16()
    session = quantized(model, inputs)
    simulated = model(inputs).detach().float()
    session.finalize()

    assert is_on_grid(model, session, "1")
    assert (model(inputs).float() - simulated).norm() < 0.02 * simulated.norm()


def test_integer_biases_of_what_takes_factors_keep_their_integers():
    model = seeded(lambda: nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4)))
    wanted = entry(targets=("_input_", "weight", "bias"))
    wanted["target_settings"]["bias"] = {"quant_dtype": "int32", "granularity": "default"}
    session = tersely.quantize(model, [wanted], algorithm="smoothquant", data=[tokens()])
    before = session.integer_weights()["0"]["bias"].values
    simulated = model(tokens()).detach()
    finished(session)

    stored = session.integer_weights()["0"]["bias"]
    assert torch.equal(stored.values, before)
    torch.testing.assert_close(stored.dequantize().float(), model[0].bias.data)
    torch.testing.assert_close(model(tokens()), simulated, rtol=1e-3, atol=1e-3)


def test_a_weight_that_is_tied_to_another_stays_as_it_is():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding, self.norm = nn.Embedding(16, 8), nn.LayerNorm(8)
            self.head = nn.Linear(8, 16, bias=False)
            self.head.weight = self.embedding.weight

        def forward(self, ids):
            return self.head(self.norm(self.embedding(ids)))

    model, ids = seeded(Tied), torch.arange(16).view(2, 8)
    session = quantized(model, ids)
    simulated = model(ids).detach()

    assert remarks(session) == [
        f"head.weight: finalize() {DIVIDES_FACTORS}, because they are tied to other weights"
    ]
    session.finalize()
    torch.testing.assert_close(model(ids), simulated)


def test_a_norm_that_runs_twice_for_two_readers_stays_as_it_is():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = nn.LayerNorm(8)
            self.one, self.other = nn.Linear(8, 4), nn.Linear(8, 4)

        def forward(self, x):
            return self.one(self.norm(x)) + self.other(self.norm(2 * x + 1))

    session = quantized(seeded(Twice), tokens())

    assert not any("folds" in text for text in remarks(session))


def test_a_layer_that_runs_twice_folds_when_all_its_inputs_come_from_one_module():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm, self.fc = nn.LayerNorm(8), nn.Linear(8, 8)

        def forward(self, x):
            return self.fc(self.norm(self.fc(self.norm(x))))

    model, inputs = seeded(Twice), tokens()
    session = quantized(model, inputs)
    simulated = model(inputs).detach()

    assert remarks(session) == [f"fc.weight: {FOLDS_FACTORS} norm"]
    session.finalize()
    torch.testing.assert_close(model(inputs), simulated, rtol=1e-4, atol=1e-4)


def test_a_session_that_is_shrunk_folds_what_is_left():
    model = seeded(
        lambda: nn.Sequential(
            nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 4)
        )
    )
    recipe = {
        "pruning": {
            "algorithm": "l1_norm",
            "config_list": [
                {
                    "op_names": ["0", "2"],
                    "sparse_ratio": 0.5,
                    "target_names": ["weight", "bias"],
                    "target_settings": {"bias": {"align": {"target_name": "weight", "dims": [0]}}},
                }
            ],
        },
        "quantization": {"algorithm": "awq", "config_list": [entry()]},
    }
    session, inputs = tersely.attach(model, recipe), tokens()[0]
    session.calibrate([inputs])
    session.compress()
    session.shrink(inputs)
    simulated = session.model(inputs).detach()
    small = session.finalize()

    assert small[2].weight.shape == (3, 4)
    torch.testing.assert_close(small(inputs), simulated, rtol=1e-4, atol=1e-5)
    assert is_on_grid(small, session, "2")
    assert is_on_grid(small, session, "4")


class Summed(nn.Module):
    """Two modules make one input by their sum, and two read it, one of them an activation of it."""

    def __init__(self):
        super().__init__()
        sizes = [(8, 16), (8, 16), (16, 8), (16, 8)]
        self.layers = nn.ModuleList(nn.Linear(*size) for size in sizes)

    def forward(self, x):
        one, other, plain, active = self.layers
        made = one(x) + other(x)
        return plain(made) + active(made.relu())


def test_no_term_of_a_sum_takes_factors_though_all_terms_are_tried_at_once():
    torch.manual_seed(0)
    model, inputs = Summed().eval(), torch.randn(32, 8) * torch.logspace(-1, 1, 8)
    chosen = {"op_names": ["layers.2", "layers.3"], "target_names": ["weight"], **INT8}
    session = tersely.quantize(model, [chosen], algorithm="awq", data=[inputs])
    expected = model(inputs)
    finished(session)

    torch.testing.assert_close(model(inputs), expected)


class Routed(nn.Module):
    """Each row goes to one of two experts, which are modules of their own."""

    def __init__(self):
        super().__init__()
        self.ups = nn.ModuleList(nn.Linear(8, 16) for _ in range(2))
        self.downs = nn.ModuleList(nn.Linear(16, 8) for _ in range(2))

    def forward(self, x):
        found = torch.zeros_like(x)
        for expert in range(2):
            rows = ((x[:, 0] > 0) == bool(expert)).nonzero().flatten()
            if len(rows):
                made = self.downs[expert](self.ups[expert](x[rows]).relu())
                found = found.index_copy(0, rows, made)
        return found


def test_experts_that_the_first_sample_does_not_reach_are_folded_as_well():
    chosen = {"op_names": ["downs.0", "downs.1"], "target_names": ["weight"], **INT8}
    inputs = torch.randn(32, 8, generator=torch.Generator().manual_seed(1))
    session = tersely.quantize(seeded(Routed), [chosen], algorithm="awq", data=[inputs])

    assert sorted(remarks(session)) == [
        f"downs.{expert}.weight: {FOLDS_FACTORS} ups.{expert}" for expert in range(2)
    ]
