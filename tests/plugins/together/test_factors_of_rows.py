"""Factors folded into some output channels of what makes an input, or where heads share them."""

import copy

import pytest
import torch
from messages.sessions import DIVIDES_FACTORS, FOLDS_FACTORS, SHARED_SCALE
from torch import nn
from torch.nn import functional

import tersely
from tersely.quantization.factors.saved_producers import describe_producers, rebuilt_producers

HEAD = 4


def heads(x):
    return x.unflatten(-1, (-1, HEAD)).transpose(1, 2)


def attended(q, k, v):
    times = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(times, 1), v.repeat_interleave(times, 1)
    return functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


class Attention(nn.Module):
    """Attention whose queries, keys and values one layer makes, in one of the ways of doing so."""

    def __init__(self, layout, queries=4, values=2, bias=False):
        super().__init__()
        self.layout, self.queries, self.values = layout, queries, values
        self.qkv = nn.Linear(8, (queries + 2 * values) * HEAD, bias=bias)
        self.o = nn.Linear(queries * HEAD, 8)

    def forward(self, x):
        made, times = self.qkv(x), self.queries // self.values
        if self.layout == "one after the other":
            sizes = [self.queries * HEAD, self.values * HEAD, self.values * HEAD]
            q, k, v = map(heads, made.split(sizes, -1))
        else:  # those of each head together
            parts = made.unflatten(-1, (self.values, times + 2, HEAD))
            q = parts[..., :times, :].flatten(2, 3).transpose(1, 2)
            k, v = parts[..., times, :].transpose(1, 2), parts[..., times + 1, :].transpose(1, 2)
        return self.o(attended(q, k, v))


class Grouped(nn.Module):
    """Attention with fewer values than heads."""

    def __init__(self, bias=False, head_dim=None):
        super().__init__()
        self.head_dim = head_dim
        self.q, self.k = nn.Linear(8, 16), nn.Linear(8, 8)
        self.v, self.o = nn.Linear(8, 8, bias=bias), nn.Linear(16, 8)

    def forward(self, x):
        return self.o(attended(*(heads(one(x)) for one in (self.q, self.k, self.v))))


class Gated(nn.Module):
    """Gates and what they gate, made by one layer, in one of the ways of doing so."""

    def __init__(self, layout):
        super().__init__()
        self.layout, self.gate_up, self.down = layout, nn.Linear(8, 24), nn.Linear(12, 8)

    def forward(self, x):
        made = self.gate_up(x)
        gate, up = {
            "halves": lambda: made.chunk(2, -1),
            "halves, gates last": lambda: made.chunk(2, -1)[::-1],
            "every second": lambda: (made[..., ::2], made[..., 1::2]),
            "every second, gates last": lambda: (made[..., 1::2], made[..., ::2]),
        }[self.layout]()
        return self.down(functional.silu(gate) * up)


def tokens():
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(4, 5, 8, generator=generator, dtype=torch.float64)
    return x * torch.linspace(0.2, 4, 8, dtype=torch.float64)


def seeded(build):
    torch.manual_seed(0)
    return build().double()


def quantized(model, name, *, algorithm="awq", options=None, others=None):
    entry = {"op_names": [name], "target_names": ["weight"], "quant_dtype": "int4"}
    entry["granularity"] = "per_channel"
    layers = [one for one, module in model.named_modules() if isinstance(module, nn.Linear)]
    rest = {**entry, "op_names": [one for one in layers if one != name], **(others or {})}
    return tersely.quantize(
        model, [entry, rest], algorithm=algorithm, options=options, data=[tokens()]
    )


def remarks(session):
    return [one.text for one in session.report().remarks if one.kind == "factors"]


MADE = {
    "grouped": (Grouped, "o", "v"),
    "grouped, with a bias": (lambda: Grouped(bias=True), "o", "v"),
    "grouped, of a stated size": (lambda: Grouped(head_dim=HEAD), "o", "v"),
    "packed": (lambda: Attention("one after the other", 2, 2), "o", "rows of qkv"),
    "packed, with a bias": (
        lambda: Attention("one after the other", 2, 2, bias=True),
        "o",
        "rows of qkv",
    ),
    "packed by heads": (lambda: Attention("by heads", 2, 2), "o", "rows of qkv"),
    "packed and grouped": (lambda: Attention("one after the other"), "o", "rows of qkv"),
    "packed and grouped by heads": (lambda: Attention("by heads"), "o", "rows of qkv"),
    "halves": (lambda: Gated("halves"), "down", "rows of gate_up"),
    "halves, gates last": (lambda: Gated("halves, gates last"), "down", "rows of gate_up"),
    "every second": (lambda: Gated("every second"), "down", "rows of gate_up"),
    "every second, gates last": (
        lambda: Gated("every second, gates last"),
        "down",
        "rows of gate_up",
    ),
}


@pytest.mark.parametrize("algorithm", ["awq", "smoothquant"])
@pytest.mark.parametrize("kind", MADE)
def test_factors_go_into_the_outputs_that_are_read(kind, algorithm):
    build, name, producer = MADE[kind]
    model = seeded(build)
    session = quantized(model, name, algorithm=algorithm)
    simulated = model(tokens()).detach()

    assert f"{name}.weight: {FOLDS_FACTORS} {producer}" in remarks(session)
    session.finalize()

    torch.testing.assert_close(model(tokens()), simulated, rtol=1e-6, atol=1e-6)
    stored = session.integer_weights()[name]["weight"]
    assert stored.input_scale is None
    assert torch.equal(stored.dequantize(), model.get_submodule(name).weight)
    plain = seeded(build)
    plain.load_state_dict(model.state_dict(), strict=True)
    assert torch.equal(plain(tokens()), model(tokens()))


def test_heads_that_read_the_same_values_have_the_same_factors():
    model = seeded(Grouped)
    quantized(model, "o")
    factors = model.o._buffers["_tersely_weight_input_scale"].view(2, 2, HEAD)
    assert torch.equal(factors[:, 0], factors[:, 1])
    assert not torch.equal(factors[0], factors[1])


def test_heads_share_factors_where_one_block_is_quantized_after_the_other():
    model = seeded(lambda: nn.Sequential(Grouped(), Grouped()))
    session = quantized(model, "1.o", options={"sequential": True})
    simulated = model(tokens()).detach()
    assert f"1.o.weight: {FOLDS_FACTORS} 1.v" in remarks(session)
    session.finalize()
    torch.testing.assert_close(model(tokens()), simulated, rtol=1e-6, atol=1e-6)


def test_equal_factors_are_the_geometric_mean_of_those_that_each_head_would_have():
    model, free = seeded(Grouped), seeded(Grouped)
    quantized(model, "o")
    entry = {"op_names": ["o"], "target_names": ["weight"], "quant_dtype": "int4"}
    entry["granularity"] = "per_channel"
    # A second reader of the values keeps them apart, so that each head has factors of its own.
    free.register_forward_hook(lambda module, args, out: out + 0 * module.v(args[0]))
    tersely.quantize(free, [entry], algorithm="awq", data=[tokens()])
    own = free.o._buffers["_tersely_weight_input_scale"].view(2, 2, HEAD)
    found = model.o._buffers["_tersely_weight_input_scale"].view(2, 2, HEAD)
    torch.testing.assert_close(found[:, 0], (own[:, 0] * own[:, 1]).sqrt())


def test_a_saved_session_folds_into_the_same_rows(tmp_path):
    model = seeded(lambda: Attention("by heads"))
    twin = copy.deepcopy(model)
    session = quantized(model, "o")
    session.save(tmp_path / "session")
    loaded = tersely.load_session(twin, tmp_path / "session")
    session.finalize()
    loaded.finalize()
    assert all(torch.equal(one, twin.state_dict()[key]) for key, one in model.state_dict().items())


def test_rows_that_share_a_scale_with_others_cannot_take_factors():
    model = seeded(lambda: Gated("halves"))
    session = quantized(model, "down", others={"granularity": "default"})
    assert remarks(session)[-1].startswith("down.weight: finalize() divides the factors")
    assert SHARED_SCALE in remarks(session)[-1]


def test_rows_that_something_else_reads_keep_their_factors():
    model = seeded(lambda: Gated("halves"))
    model.register_forward_hook(lambda module, args, out: out + module.gate_up(args[0])[..., -8:])
    session = quantized(model, "down")
    assert DIVIDES_FACTORS in remarks(session)[-1]


def test_altered_rows_of_a_saved_session_are_refused(tmp_path):
    model = seeded(Grouped)
    state = quantized(model, "o")._engines.quantization
    saved = describe_producers(state.producers)
    saved["o.weight"]["rows"]["size"] = 0
    with pytest.raises(tersely.SessionFileError, match="how the outputs of 'v' are the inputs"):
        rebuilt_producers(saved, state.bound_targets, state.context.binding)
