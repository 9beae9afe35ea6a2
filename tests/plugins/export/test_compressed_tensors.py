"""The format compressed_tensors, loaded by transformers: integers, outputs and tokens."""

import json

import pytest
import torch
from torch import nn

import tersely

transformers = pytest.importorskip("transformers")
pytest.importorskip("compressed_tensors")
pytestmark = pytest.mark.filterwarnings("ignore")  # of libraries that transformers imports

TOKENS = {"input_ids": torch.randint(0, 200, (4, 16), generator=torch.Generator().manual_seed(0))}
SIZES = {
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 200,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
GROUPS = {"quant_dtype": "int4", "granularity": {"group": 128}}
BODY = {"op_types": ["Linear"], "exclude_op_names": ["lm_head", "embed_out"]}


def llama(**changes):
    config = transformers.LlamaConfig(**{**SIZES, "num_key_value_heads": 2, **changes})
    return transformers.LlamaForCausalLM(config).eval()


def gpt_neox():
    return transformers.GPTNeoXForCausalLM(transformers.GPTNeoXConfig(**SIZES)).eval()


def weights(**entry):
    return [{**BODY, "target_names": ["weight"], **entry}]


def inputs_and_weights(**of_input):
    settings = {"weight": {"granularity": "out_channel"}, "_input_": of_input}
    return [{**BODY, "target_names": ["_input_", "weight"], "target_settings": settings}]


def written(model, entries, path, *, algorithm="rtn", **export):
    session = tersely.quantize(model, entries, algorithm=algorithm, data=[TOKENS])
    return session.export("compressed_tensors", path, example_inputs=TOKENS, **export)


@pytest.mark.parametrize("build", [llama, gpt_neox])
def test_gptq_in_groups_generates_the_tokens_of_the_simulation(build, tmp_path):
    exported = written(build(), weights(**GROUPS), tmp_path / "m", algorithm="gptq")

    checks = exported.checks
    assert checks["integer_weights_equal"] == checks["weights_equal"] > 0
    assert checks["largest_difference"] == 0
    assert checks["tokens_equal"] == checks["tokens_generated"] == 32


def test_four_bits_take_half_a_byte_and_their_scales(tmp_path):
    model = llama(hidden_size=512, intermediate_size=1024)
    layers = [one for name, one in model.named_modules() if isinstance(one, nn.Linear)][:-1]
    expected = sum(one.weight.numel() * (0.5 + 4 / 128) for one in layers)

    exported = written(model, weights(**GROUPS), tmp_path / "m")

    assert exported.checks["bytes_of_weights"] == pytest.approx(expected, rel=0.03)


@pytest.mark.parametrize(
    "entry",
    [
        {"quant_dtype": "int3", "granularity": {"group": 32}},
        {"quant_dtype": "int4", "granularity": "out_channel"},
        {"quant_dtype": "uint4", "quant_scheme": "affine", "granularity": {"group": 32}},
        {"quant_dtype": "int8", "granularity": "default"},
        {"quant_dtype": "int8", "granularity": "out_channel"},
        {"quant_dtype": "int8", "granularity": [32, 64]},
        {"quant_dtype": "uint8", "quant_scheme": "affine", "granularity": "out_channel"},
    ],
    ids=["int3", "channel4", "affine4", "tensor8", "channel8", "block8", "affine8"],
)
def test_each_layout_of_weights_is_read_exactly(entry, tmp_path):
    exported = written(llama(), weights(**entry), tmp_path / "m")

    assert exported.checks["weights_equal"] == 14
    assert exported.checks["largest_difference"] == 0


@pytest.mark.parametrize("granularity", ["default", "per_token"])
@pytest.mark.parametrize("scheme", ["affine", "symmetric"])
def test_eight_bit_inputs_are_rounded_as_in_the_session(scheme, granularity, tmp_path):
    entries = inputs_and_weights(quant_dtype="uint8", quant_scheme=scheme, granularity=granularity)

    exported = written(llama(), entries, tmp_path / "m", algorithm="ptq")

    assert exported.checks["largest_difference"] == 0
    group = json.loads((tmp_path / "m" / "config.json").read_text())["quantization_config"]
    assert group["config_groups"]["group_0"]["input_activations"]["num_bits"] == 8


@pytest.mark.parametrize("is_tied", [False, True])
@pytest.mark.parametrize("preset", ["w8a8", "w8a8_dynamic", "w4a16", "fp8"])
def test_every_preset_for_vllm_is_written(preset, is_tied, tmp_path):
    stage = {"preset": preset, "for": "vllm"}
    model = llama(tie_word_embeddings=is_tied)
    session = tersely.attach(model, {"quantization": stage})
    assert any("lm_head" in one.name for one in session.plan) is not is_tied
    session.calibrate([TOKENS])
    session.compress()

    exported = session.export("compressed_tensors", tmp_path / "m", example_inputs=TOKENS)

    assert exported.checks["weights_equal"] == (14 if is_tied else 15)
    assert exported.checks["cosine"] > 0.999


def test_shards_have_an_index_and_load(tmp_path):
    options = {"shard_bytes": 100_000}

    exported = written(llama(), weights(**GROUPS), tmp_path / "m", options=options)

    index = json.loads((tmp_path / "m" / "model.safetensors.index.json").read_text())
    assert len(set(index["weight_map"].values())) > 1
    assert exported.checks["tokens_equal"] == 32


def test_a_tied_head_is_stored_once(tmp_path):
    model = llama(tie_word_embeddings=True)

    written(model, weights(**GROUPS), tmp_path / "m")

    from safetensors import safe_open

    with safe_open(tmp_path / "m" / "model.safetensors", framework="pt") as stream:
        assert "lm_head.weight" not in stream.keys()  # noqa: SIM118  # it is no mapping


def test_layers_that_are_loaded_as_one_must_be_alike(tmp_path):
    entries = [
        {**weights(**GROUPS)[0], "exclude_op_names": ["lm_head", "model.layers.0.self_attn.k_proj"]}
    ]

    with pytest.raises(tersely.ExportError) as caught:
        written(llama(), entries, tmp_path / "m")

    assert caught.value.target == "model.layers.0.self_attn.k_proj"
    assert "reads the same tensor as model.layers.0.self_attn.q_proj" in caught.value.reason
    allowed = written(llama(), entries, tmp_path / "m", options={"unlike_layers": "allow"})
    assert allowed.checks["tokens_equal"] == 32


@pytest.mark.parametrize(
    ("entries", "target", "reason"),
    [
        (weights(quant_dtype="int9"), "model.layers.0.self_attn.q_proj.weight", "up to 8 bits"),
        (
            weights(quant_dtype="int4", granularity=[32, 64]),
            "model.layers.0.self_attn.q_proj.weight",
            "packs int4 by output channel or in groups",
        ),
        (
            [{"op_types": ["Embedding"], "target_names": ["weight"]}],
            "model.embed_tokens.weight",
            "weights of Linear layers",
        ),
        (
            [{**BODY, "target_names": ["_input_"]}],
            "model.layers.0.self_attn.q_proj._input_",
            "add weight",
        ),
        (
            inputs_and_weights(quant_dtype="int4"),
            "model.layers.0.self_attn.q_proj._input_",
            "inputs of 8 bits",
        ),
        (
            [{**BODY, "target_names": ["_output_", "weight"]}],
            "model.layers.0.self_attn.q_proj._output_",
            "leave outputs out",
        ),
    ],
)
def test_what_the_format_has_no_place_for_is_refused_by_name(entries, target, reason, tmp_path):
    with pytest.raises(tersely.ExportError) as caught:
        written(llama(), entries, tmp_path / "m", algorithm="ptq")

    assert caught.value.target == target
    assert reason in caught.value.reason
    assert list(tmp_path.iterdir()) == []


def test_packed_layers_of_gpt2_are_refused_by_name(tmp_path):
    model = transformers.GPT2LMHeadModel(
        transformers.GPT2Config(n_embd=64, n_layer=1, n_head=2, vocab_size=200)
    )
    entries = [{"op_types": ["Conv1D"], "target_names": ["weight"]}]

    with pytest.raises(tersely.ExportError, match="this is weight of Conv1D"):
        written(model, entries, tmp_path / "m")


def test_a_shrunk_model_is_refused_by_name_as_its_class_has_other_shapes(tmp_path):
    config = transformers.BertConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        vocab_size=200,
    )
    model = transformers.BertModel(config).eval()
    entry = {
        "op_names_re": [r".*intermediate\.dense"],
        "sparse_ratio": 0.25,
        "granularity": "out_channel",
    }
    pruning = {"algorithm": "l1_norm", "config_list": [entry]}
    quantization = {"algorithm": "rtn", "config_list": weights(granularity="out_channel")}
    session = tersely.attach(model, {"pruning": pruning, "quantization": quantization})
    session.calibrate([TOKENS])
    session.compress()
    session.shrink(TOKENS)

    with pytest.raises(tersely.ExportError, match="as after shrinking, and its class makes"):
        session.export("compressed_tensors", tmp_path / "m", example_inputs=TOKENS)

    assert list(tmp_path.iterdir()) == []


def test_a_model_of_another_library_is_refused(quantized, layers, tmp_path):
    session = quantized(layers, torch.randn(4, 32), target_names=["weight"])

    with pytest.raises(tersely.ExportError, match="for models of transformers"):
        session.export("compressed_tensors", tmp_path / "m")


def test_other_integers_in_the_file_are_an_error(monkeypatch, tmp_path):
    from tersely_export import compressed_tensors

    real = compressed_tensors._pack
    monkeypatch.setattr(
        compressed_tensors, "_pack", lambda values, bits, dim: real(-values, bits, dim)
    )

    with pytest.raises(tersely.ExportError, match="reads different integers"):
        written(llama(), weights(**GROUPS), tmp_path / "m")

    assert list(tmp_path.iterdir()) == []
