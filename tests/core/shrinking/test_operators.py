"""Operators between a layer that loses half of its rows and its reader: exact, or kept by name."""

import pytest
import torch
from messages.planning import NO_RULE
from messages.shrinking import DEPENDS_ON_INPUT
from torch import nn
from torch.nn import functional

from tersely.errors import SessionError
from tersely.shrinking.shrink import shrink_module

IMAGE = (torch.randn(2, 3, 6, 8, generator=torch.Generator().manual_seed(0)),)


class Between(nn.Module):
    """Two convolutions, something that is made of their outputs, and what reads it."""

    def __init__(self, step):
        super().__init__()
        self.first, self.second = (nn.Conv2d(3, 16, 3, padding=1) for _ in range(2))
        self.square, self.scale = nn.Parameter(torch.randn(16, 16)), nn.Parameter(torch.randn(16))
        self.step = step
        with torch.no_grad():
            made = step(self, self.first(IMAGE[0]), self.second(IMAGE[0]))
        width = made.shape[1] if made.ndim == 4 else made.shape[-1]
        self.head = nn.Conv2d(width, 5, 1) if made.ndim == 4 else nn.Linear(width, 5)

    def forward(self, x):
        return self.head(self.step(self, self.first(x), self.second(x)))


def words(x):
    """Positions in a row, with channels last."""
    return x.flatten(2).transpose(1, 2)


def heads(x, count=2):
    return words(x).unflatten(-1, (-1, 16 // count)).transpose(1, 2)


def attends_by_einsum(model, x, y):
    query, key = words(x).unflatten(-1, (-1, 4)), words(y).unflatten(-1, (-1, 4))
    scores = torch.einsum("nihd,njhd->nhij", query, key).softmax(-1)
    return torch.einsum("nhij,njhd->nihd", scores, key).flatten(2)


def looks_non_locally(model, x, y):
    scores = torch.bmm(words(x), y.flatten(2)).softmax(-1)
    return torch.bmm(scores, words(y))


def adds_to_a_product(model, x, y):
    start = x.new_zeros(1).expand(2, 48, 48)
    scores = torch.baddbmm(start, words(x), y.flatten(2), alpha=0.25).softmax(-1)
    return torch.bmm(scores, words(y))


def attends_with_arguments(model, x, y):
    mask = torch.ones(48, 48, dtype=torch.bool).tril()
    mixed = functional.scaled_dot_product_attention(
        heads(x), heads(y), heads(y), attn_mask=mask, dropout_p=0.0, scale=0.3
    )
    return mixed.transpose(1, 2).flatten(2)


def turns(model, x, y):
    """Rotary positions, halves of a head turned against each other."""
    angle = torch.arange(48)[:, None] * torch.pow(100.0, -torch.arange(4) / 4)
    cos, sin = (torch.cat([one, one], -1).to(x) for one in (angle.cos(), angle.sin()))

    def turned(z):
        return z * cos + torch.cat([-z[..., 4:], z[..., :4]], -1) * sin

    mixed = functional.scaled_dot_product_attention(
        turned(heads(x)), turned(heads(y)), heads(y), is_causal=True
    )
    return mixed.transpose(1, 2).flatten(2)


def turns_complex(model, x, y):
    """Rotary positions as complex numbers."""
    angle = torch.arange(48)[:, None] * torch.pow(100.0, -torch.arange(4) / 4)
    turn = torch.polar(torch.ones_like(angle), angle).to(x.dtype.to_complex())

    def turned(z):
        pairs = torch.view_as_complex(z.reshape(*z.shape[:-1], 4, 2).contiguous())
        return torch.view_as_real(pairs * turn).flatten(-2)

    query, key = turned(heads(x)), turned(heads(y))
    mixed = functional.scaled_dot_product_attention(query, key, heads(y))
    return mixed.transpose(1, 2).flatten(2)


def samples(model, x, y):
    return functional.grid_sample(x, y[:, :2].permute(0, 2, 3, 1).tanh(), align_corners=False)


def folds(model, x, y):
    return functional.fold(functional.unfold(x, 3, padding=1), (6, 8), 3, padding=1)


def picked(x):
    """The positions with the largest sums, in each example of a batch: (batch, 12)."""
    return words(x).sum(-1).topk(12, 1).indices


def goes_deep(how):
    """Compute with a part of all positions, and put what comes out where they were."""

    def step(model, x, y):
        rows, places = words(x), picked(y)
        wide = places.unsqueeze(-1).expand(-1, -1, rows.shape[-1])
        batch = torch.arange(2)[:, None]
        if how == "scatter":
            return rows.scatter(1, wide, rows.gather(1, wide).tanh())
        if how == "scatter_add":
            return rows.scatter_add(1, wide, rows.gather(1, wide).tanh())
        if how == "index_put":
            return rows.index_put((batch, places), rows[batch, places].tanh())
        if how == "added":
            return rows.index_put((batch, places), words(y)[batch, places], accumulate=True)
        rows = rows.clone()
        rows[:, places[0]] = rows[:, places[1]] * 2.0
        return rows

    return step


def fills_where_true(model, x, y):
    x = x.clone()
    x[x > 0.5] = 0.25
    return x


def fills_rows_where_true(model, x, y):
    rows = words(x).clone()
    rows[words(y).sum(-1) > 0] = 0.0
    return rows


HALF = [*range(8)]
"""Kept rows: the first of two heads, the first two of four."""

DEPTHS = ("scatter", "scatter_add", "index_put", "added", "a slice")
"""How positions that a router picked are put back."""

GOES = {
    "einsum with a weight": lambda m, x, y: torch.einsum("nchw,dc->ndhw", x, m.square),
    "einsum element by element": lambda m, x, y: torch.einsum("nchw,nc->nchw", x, y.mean((2, 3))),
    "einsum with dots": lambda m, x, y: torch.einsum("n...,n...->n...", x, y),
    "einsum of three": lambda m, x, y: torch.einsum(
        "nic,cd,njd->nij", words(x), m.square, words(y)
    ),
    "einsum of one": lambda m, x, y: torch.einsum("nchw->ncw", x).transpose(1, 2),
    "einsum with heads": attends_by_einsum,
    "tensordot": lambda m, x, y: torch.tensordot(words(x), m.square, dims=1),
    "bmm over channels": looks_non_locally,
    "baddbmm": adds_to_a_product,
    "a matrix product from the left": lambda m, x, y: (m.square @ x.flatten(2)).unflatten(
        2, (6, 8)
    ),
    "attention with a mask and a scale": attends_with_arguments,
    "attention without heads": lambda m, x, y: functional.scaled_dot_product_attention(
        words(x), words(y), words(y), scale=0.3
    ),
    "rotary positions": turns,
    "rotary positions of complex numbers": turns_complex,
    "sum over channels": lambda m, x, y: x.abs().sum(1, keepdim=True),
    "normalize over channels": lambda m, x, y: functional.normalize(x, dim=1),
    "gather along positions": lambda m, x, y: torch.gather(x, 2, y.argsort(2)),
    "take_along_dim": lambda m, x, y: torch.take_along_dim(x, x.argsort(3)[..., :3], 3),
    "rows that the input picks": lambda m, x, y: words(x)[:, x.sum((0, 1, 3)).argsort()],
    "index_select by the input": lambda m, x, y: x.index_select(3, x.sum((0, 1, 2)).argsort()),
    "topk of positions": lambda m, x, y: x.flatten(2).topk(4, 2).values.unflatten(2, (2, 2)),
    "sort of positions": lambda m, x, y: x.sort(2, descending=True).values,
    "roll of positions": lambda m, x, y: x.roll((1, 2), (2, 3)),
    "tile": lambda m, x, y: x.tile(1, 2, 1, 1),
    "repeat_interleave": lambda m, x, y: x.repeat_interleave(2, 1),
    "unfold": lambda m, x, y: functional.unfold(x, 3).unflatten(2, (4, 6)),
    "fold": folds,
    "fft of positions": lambda m, x, y: torch.fft.irfft2(torch.fft.rfft2(x) * 2, s=(6, 8)),
    "cumsum of zeros": lambda m, x, y: x.cumsum(2) * x,
    "grid_sample": samples,
    "nearest-exact": lambda m, x, y: functional.interpolate(
        x, scale_factor=2, mode="nearest-exact"
    ),
    "bicubic": lambda m, x, y: functional.interpolate(x, size=(5, 5), mode="bicubic"),
    "pixel_unshuffle": lambda m, x, y: functional.pixel_unshuffle(x, 2),
    "channel_shuffle": lambda m, x, y: functional.channel_shuffle(torch.cat([x, y], 1), 2),
    "channel dropout": lambda m, x, y: functional.dropout2d(x, 0.5, m.training),
    "masked_fill": lambda m, x, y: x.masked_fill(x < 0.1, 2.0),
    "where": lambda m, x, y: torch.where(x > 0, x, y),
    "instance_norm": lambda m, x, y: functional.instance_norm(x),
    "fake quantization": lambda m, x, y: torch.fake_quantize_per_tensor_affine(
        x, 0.1, 0, -128, 127
    ),
    "complex numbers": lambda m, x, y: torch.complex(x, y).abs(),
    "ones_like": lambda m, x, y: x + torch.ones_like(x),
    "quantile of positions": lambda m, x, y: words(x) - words(x).quantile(0.3, 1, keepdim=True),
    "nanquantiles of positions": lambda m, x, y: words(x).nanquantile(x.new_tensor([0.2, 0.9]), 1),
    "kthvalue of positions": lambda m, x, y: words(x).kthvalue(5, 1, keepdim=True).values,
    "mode and extremes of positions": lambda m, x, y: (
        words(x).mode(1).values + words(x).aminmax(dim=1).max
    ),
    **{f"depths by {how}": goes_deep(how) for how in DEPTHS},
    "a value where a mask is true": fills_where_true,
    "zeros in rows where a mask is true": fills_rows_where_true,
}

STAYS = {
    "fft over channels": (lambda m, x, y: torch.fft.fft(x, dim=1).real, "fft_fft mixes them"),
    "cumsum over channels": (lambda m, x, y: x.cumsum(1), "cumsum mixes them"),
    "topk of channels": (lambda m, x, y: x.topk(4, 1).values, "topk mixes them"),
    "quantile of channels": (lambda m, x, y: x.quantile(0.3, 1), "quantile picks among them"),
    "kthvalue of channels": (
        lambda m, x, y: x.kthvalue(2, 1, keepdim=True).values * y,
        "kthvalue picks among them",
    ),
    "sort of channels": (lambda m, x, y: x.sort(1).values, "sort mixes them"),
    "argmax of channels": (lambda m, x, y: x.argmax(1, keepdim=True) * y, "argmax reduces them"),
    "softmax over channels": (lambda m, x, y: x.softmax(1), "softmax mixes them"),
    "mean over channels": (lambda m, x, y: x - x.mean(1, keepdim=True), "mean reduces them"),
    "attention of a usual scale": (
        lambda m, x, y: functional.scaled_dot_product_attention(words(x), words(y), words(y)),
        "attention sums over it",
    ),
    "channel_shuffle of other groups": (
        lambda m, x, y: functional.channel_shuffle(x, 2),
        f"head {DEPENDS_ON_INPUT} (conv2d of head)",
    ),
    "roll of channels": (lambda m, x, y: x.roll(3, 1), "(roll) depends on the size"),
    "index_select": (
        lambda m, x, y: x.index_select(1, torch.tensor([3, 1, 2, 9, 12])),
        "(index_select) depends on the size",
    ),
    "gather of channels": (
        lambda m, x, y: x.gather(1, torch.arange(8)[None, :, None, None].expand(2, 8, 6, 8)),
        "gather picks among them",
    ),
    "local response norm": (
        lambda m, x, y: functional.local_response_norm(x, 5),
        "avg_pool3d mixes positions",
    ),
    "RMS norm of one's own": (
        lambda m, x, y: m.scale * words(x) * words(x).pow(2).mean(-1, keepdim=True).rsqrt(),
        "mean reduces them",
    ),
    "einsum of a diagonal": (
        lambda m, x, y: torch.einsum("ncc->nc", x.flatten(2)[:, :, :16]),
        f"{NO_RULE} einsum of these operands",
    ),
    "random numbers": (lambda m, x, y: x * torch.rand_like(x), "draws random numbers"),
    "numbers written into channels": (
        lambda m, x, y: x.index_put((torch.tensor([0, 1]), torch.tensor([2, 3])), y[0, 0, 0, 0]),
        "index_put puts values along them",
    ),
    "an unknown operator": (lambda m, x, y: x.triu(), f"{NO_RULE} the operator triu"),
}


def masked(help, model):
    return help.rows(model, ["first", "second"], help.keep(16, HALF))


@pytest.mark.parametrize("name", GOES)
def test_channels_go_through(help, name):
    model = Between(GOES[name]).eval()
    found = help.shrink(model, IMAGE, masked(help, model))
    assert model.first.out_channels == 8
    assert all("no output" in stay.reason for stay in found.stays)


@pytest.mark.parametrize("name", STAYS)
def test_channels_stay_with_the_operators_name(help, name):
    step, reason = STAYS[name]
    model = Between(step)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    found = shrink_module(model, IMAGE, {}, masked(help, model))
    assert reason in " ".join(stay.reason for stay in found.stays if stay.target == "first.weight")
    assert "first.weight" not in found.cuts
    if not found.cuts:
        torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)


def test_a_size_that_depends_on_values_is_refused_by_name(help):
    model = Between(lambda m, x, y: torch.cat([x[:, x.new_tensor([1] * 8 + [0] * 8) > 0], y], 1))
    with pytest.raises(SessionError, match="index in forward of the model has a result whose size"):
        help.shrink(model, IMAGE, masked(help, model))


def test_a_layer_that_only_training_reads_keeps_its_shape(help):
    class Auxiliary(nn.Module):
        def __init__(self):
            super().__init__()
            self.trunk, self.head = nn.Linear(6, 8), nn.Linear(8, 3)
            self.extra, self.loss = nn.Linear(6, 8), nn.Linear(8, 3)

        def forward(self, x):
            found = self.head(self.trunk(x))
            return (found, self.loss(self.extra(x))) if self.training else found

    model = Auxiliary()
    found = help.shrink(
        model, (torch.randn(4, 6),), help.rows(model, ["trunk", "extra"], help.half(8))
    )
    assert (model.trunk.out_features, model.extra.out_features) == (4, 8)
    assert {stay.reason for stay in found.stays} == {"no output of the example depends on it"}
    model.train()(torch.randn(4, 6))


def test_what_draws_random_numbers_in_evaluation_is_compared_with_the_same_numbers(help):
    class Noisy(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second, self.head = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 3)

        def forward(self, x):
            return self.head(functional.dropout(self.second(self.first(x)), 0.5, training=True))

    model, inputs = Noisy(), (torch.randn(4, 6),)
    state = torch.get_rng_state()
    found = shrink_module(model, inputs, {}, help.rows(model, ["first"], help.half(8)))
    assert model.first.out_features == 4
    assert found.error < 1e-9
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    "between",
    [lambda x: x.cumsum(1) / 2, lambda x: x - x.median(1, keepdim=True).values],
    ids=["cumsum", "median"],
)
def test_channels_pass_sums_and_medians_along_time(help, between):
    class Along(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.up, self.down = nn.Linear(4, 8), nn.Linear(8, 3)

        def forward(self, x):
            return self.down(between(self.up(x)))

    model = Along().eval()
    help.shrink(model, (torch.randn(2, 5, 4),), help.rows(model, ["up"], help.half(8)))
    assert (model.up.weight.shape, model.down.weight.shape) == ((4, 4), (3, 4))


@pytest.mark.parametrize("outputs", [5, 8])
def test_the_columns_that_an_einsum_reads_are_those_of_its_weight(help, outputs):
    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.first, self.weight = nn.Linear(6, 8), nn.Parameter(torch.randn(outputs, 8))

        def forward(self, x):
            return torch.einsum("nti,oi->nto", self.first(x), self.weight)

    model, columns = Mixed().eval(), help.keep(8, range(4))
    kept = {"weight": columns[None].expand(outputs, 8)}
    help.shrink(model, (torch.randn(2, 5, 6),), kept)
    assert (model.first.weight.shape, model.weight.shape) == ((4, 6), (outputs, 4))


def test_a_model_of_one_vector_shrinks(help):
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    help.shrink(model, (torch.randn(6),), help.rows(model, ["0"], help.half(8)))
    assert model[2].weight.shape == (3, 4)
