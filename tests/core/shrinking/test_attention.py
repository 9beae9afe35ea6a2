"""Attention modules of torch lose whole heads; what cannot lose them says what would free it."""

import copy

import pytest
import torch
from messages.shrinking import CANNOT_FOLLOW, EQUALLY_MANY
from torch import nn

from tersely.errors import SessionError
from tersely.shrinking.heads import FewerHeads
from tersely.shrinking.report import hint_for
from tersely.shrinking.shrink import shrink_module

X = torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(0))
PADDING = torch.tensor([[False] * 5, [False] * 3 + [True] * 2])


class Attending(nn.Module):
    def __init__(self, *, need_weights=False, **options):
        super().__init__()
        torch.manual_seed(0)
        self.attention = nn.MultiheadAttention(16, 4, **options)
        if self.attention.in_proj_bias is not None:
            nn.init.normal_(self.attention.in_proj_bias)
        self.down, self.need_weights = nn.Linear(16, 3), need_weights

    def forward(self, query, key=None, padding=None):
        key = query if key is None else key
        found = self.attention(
            query, key, key, need_weights=self.need_weights, key_padding_mask=padding
        )
        return self.down(found[0])


def masked_heads(model, path, kept):
    """Masks of whole heads of 4 features in all that an attention module makes of its inputs."""
    module, prefix = model.get_submodule(path), f"{path}." if path else ""
    heads = torch.zeros(4, dtype=torch.bool)
    heads[kept] = True
    rows = heads.repeat_interleave(4)
    found = {}
    for name, parameter in module.named_parameters(recurse=False):
        if name.startswith("bias_"):
            found[prefix + name] = rows[None, None]
        else:
            own = rows.repeat(len(parameter) // 16)
            found[prefix + name] = own if parameter.ndim == 1 else own[:, None].expand_as(parameter)
    return found


@pytest.mark.parametrize("need_weights", [False, True])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"batch_first": True},
        {"bias": False},
        {"add_bias_kv": True, "add_zero_attn": True},
    ],
    ids=["plain", "batch_first", "without_bias", "with_appended_keys"],
)
def test_masked_heads_of_an_attention_module_go(help, options, need_weights):
    model = Attending(need_weights=need_weights, **options).eval()

    help.shrink(model, (X,), masked_heads(model, "attention", [1, 3]))

    attention = model.attention
    assert (attention.num_heads, attention.head_dim, attention.embed_dim) == (2, 4, 16)
    assert attention.in_proj_weight.shape == (24, 16)
    assert attention.out_proj.weight.shape == (16, 8)
    assert attention.out_proj.in_features == 8


def test_heads_of_separate_projections_go(help):
    model = Attending(kdim=6, vdim=6, batch_first=True).eval()
    other = torch.randn(2, 7, 6)

    help.shrink(model, (X, other), masked_heads(model, "attention", [2]))

    assert model.attention.q_proj_weight.shape == (4, 16)
    assert model.attention.v_proj_weight.shape == (4, 6)


def test_a_constant_that_masked_heads_return_is_taken_over_by_the_bias(help):
    model = Attending(batch_first=True).eval()
    kept = masked_heads(model, "attention", [0, 1])
    del kept["attention.in_proj_bias"]

    found = help.shrink(model, (X,), kept)

    assert model.attention.num_heads == 2
    assert [one.bias for one in found.absorbed] == ["attention.out_proj.bias"]


@pytest.mark.parametrize("norm_first", [False, True])
def test_an_encoder_layer_loses_heads_and_hidden_units(help, norm_first):
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(16, 4, 24, batch_first=True, norm_first=norm_first).eval()
    kept = masked_heads(layer, "self_attn", [0, 3]) | help.rows(layer, ["linear1"], help.half(24))

    help.shrink(layer, (X,), kept)

    assert layer.self_attn.num_heads == 2
    assert layer.linear2.weight.shape == (16, 12)


def test_an_encoder_loses_other_heads_in_each_layer_and_computes_padded_positions(help):
    class Encoding(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            layer = nn.TransformerEncoderLayer(16, 4, 24, batch_first=True)
            self.encoder = nn.TransformerEncoder(layer, 2)

        def forward(self, x, padding):
            return self.encoder(x, src_key_padding_mask=padding)

    model = Encoding().eval()
    masked = copy.deepcopy(model)
    kept = masked_heads(model, "encoder.layers.0.self_attn", [1])
    kept |= masked_heads(model, "encoder.layers.1.self_attn", [0, 2, 3])
    for name, mask in kept.items():
        masked.get_parameter(name).data.mul_(mask)

    shrink_module(model, (X, PADDING), {}, kept)

    assert [one.self_attn.num_heads for one in model.encoder.layers] == [1, 3]
    assert not model.encoder.use_nested_tensor
    torch.testing.assert_close(model(X, PADDING), masked.requires_grad_(True)(X, PADDING))


def test_an_attention_of_which_no_head_is_masked_whole_stays_torchs_own():
    model = Attending().eval()
    kept = masked_heads(model, "attention", [0, 1])
    rows = kept["attention.in_proj_weight"].clone()
    rows[16:] = True  # queries alone

    found = shrink_module(model, (X,), {}, {"attention.in_proj_weight": rows})

    assert type(model.attention) is nn.MultiheadAttention
    assert {one.reason for one in found.stays} == {f"{EQUALLY_MANY} (split of attention)"}


def test_an_attention_that_loses_nothing_stays_torchs_own_beside_one_that_does():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = Attending(), nn.MultiheadAttention(16, 4)

        def forward(self, x):
            return self.first(x), *self.second(x, x, x)

    model = Two().eval()
    kept = masked_heads(model, "first.attention", [0, 1]) | masked_heads(model, "second", [0, 1])

    found = shrink_module(model, (X,), {}, kept)

    assert type(model.first.attention) is FewerHeads
    assert type(model.second) is nn.MultiheadAttention
    assert {one.target for one in found.stays} == {"second.in_proj_weight"}
    assert {one.reason for one in found.stays} == {"mean reduces them (mean of second)"}


def test_an_attention_with_a_forward_of_its_own_keeps_its_heads():
    class Own(nn.MultiheadAttention):
        def forward(self, *args, **kwargs):
            return super().forward(*args, **kwargs)

    model = Attending().eval()
    model.attention.__class__ = Own

    found = shrink_module(model, (X,), {}, masked_heads(model, "attention", [0]))

    assert found.cuts == {}
    [reason] = {stay.reason for stay in found.stays}
    assert reason == (
        "forward of attention (Own, made of torch.nn.MultiheadAttention) requires its full width"
    )
    assert hint_for(reason) == ("write it as separate projections and scaled_dot_product_attention")


def test_a_model_that_cannot_be_exported_has_its_attention_as_it_was():
    class Branching(Attending):
        def forward(self, x):
            return super().forward(x) if x.sum() > 0 else x

    model = Branching().eval()

    with pytest.raises(SessionError, match=CANNOT_FOLLOW):
        shrink_module(model, (X,), {}, masked_heads(model, "attention", [0]))

    assert type(model.attention) is nn.MultiheadAttention
    assert model.attention._qkv_same_embed_dim


def _masks():
    triangle = torch.triu(torch.ones(5, 5, dtype=torch.bool), 1)
    return {
        "none": {},
        "bool": {"attn_mask": triangle},
        "float": {"attn_mask": torch.randn(5, 5)},
        "per_head": {"attn_mask": torch.randn(8, 5, 5)},
        "padding": {"key_padding_mask": PADDING},
        "both": {"attn_mask": triangle, "key_padding_mask": PADDING},
        "causal": {"attn_mask": triangle, "is_causal": True},
    }


@pytest.mark.parametrize("need_weights", [False, True])
@pytest.mark.parametrize("masks", list(_masks()))
@pytest.mark.parametrize("appends", [False, True])
def test_it_computes_what_torch_computes_with_all_heads(masks, need_weights, appends):
    torch.manual_seed(0)
    reference = nn.MultiheadAttention(
        16, 4, add_bias_kv=appends, add_zero_attn=appends, batch_first=True
    ).eval()
    ours = copy.deepcopy(reference)
    ours.__class__ = FewerHeads
    options = {**_masks()[masks], "need_weights": need_weights}

    expected, actual = reference(X, X, X, **options), ours(X, X, X, **options)

    torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize("average_attn_weights", [False, True])
def test_it_takes_a_sequence_without_a_batch(average_attn_weights):
    torch.manual_seed(0)
    reference = nn.MultiheadAttention(16, 4)
    ours = copy.deepcopy(reference)
    ours.__class__ = FewerHeads
    given = {"average_attn_weights": average_attn_weights, "key_padding_mask": PADDING[1]}

    expected = reference(X[0], X[1], X[1], **given)

    torch.testing.assert_close(ours(X[0], X[1], X[1], **given), expected)


def test_it_drops_weights_in_training_alone():
    module = nn.MultiheadAttention(16, 4, dropout=0.5)
    module.__class__ = FewerHeads

    torch.manual_seed(0)
    trained = module(X, X, X)[1]

    assert (trained == 0).any()
    assert not (module.eval()(X, X, X)[1] == 0).any()


def test_a_causal_hint_needs_the_mask_that_it_is_about():
    module = nn.MultiheadAttention(16, 4)
    module.__class__ = FewerHeads

    with pytest.raises(ValueError, match="give attn_mask as well"):
        module(X, X, X, is_causal=True)


def random_masks(model, generator):
    """Masks of random heads, and sometimes of single rows, of some of what attention reads."""
    found = {}
    for path in ("self_attn", "multihead_attn"):
        kept = torch.nonzero(torch.rand(4, generator=generator) < 0.6).reshape(-1).tolist()
        for name, mask in masked_heads(model, path, kept).items():
            if torch.rand((), generator=generator) < 0.8:
                rows = torch.rand(len(mask), generator=generator) < 0.95
                found[name] = mask & (rows if mask.ndim == 1 else rows[:, None])
    units = torch.rand(24, generator=generator) < 0.5
    return found | {"linear1.weight": units[:, None].expand(24, 16)}


@pytest.mark.parametrize("seed", range(6))
def test_random_masks_of_a_decoder_layer_never_give_other_outputs(help, seed):
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    layer = nn.TransformerDecoderLayer(16, 4, 24, batch_first=bool(seed % 2)).eval()
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.3)

    help.shrink(layer, (X, X.roll(1, 0)), random_masks(layer, generator))
