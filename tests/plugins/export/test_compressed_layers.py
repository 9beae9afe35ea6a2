"""A model that transformers loaded compressed, of which one layer at a time becomes floats."""

import pytest
import torch
from torch import nn

import tersely

transformers = pytest.importorskip("transformers")
pytest.importorskip("compressed_tensors")
pytestmark = pytest.mark.filterwarnings("ignore")  # of libraries that transformers imports

TOKENS = {"input_ids": torch.randint(0, 50, (2, 8), generator=torch.Generator().manual_seed(0))}
INT4 = {"quant_dtype": "int4", "granularity": {"group": 32}}
INT8 = {"quant_dtype": "int8", "granularity": "out_channel"}
UINT8 = {"quant_dtype": "uint8", "quant_scheme": "affine", "granularity": "per_token"}


@pytest.fixture(params=["packed", "bytes"])
def loaded(request, tmp_path):
    """A model of compressed layers as `from_pretrained` returns it."""
    config = transformers.LlamaConfig(
        hidden_size=64,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        vocab_size=50,
        bos_token_id=1,
        eos_token_id=2,
    )
    model = transformers.LlamaForCausalLM(config).eval()
    settings = {"weight": INT4} if request.param == "packed" else {"weight": INT8, "_input_": UINT8}
    entry = {"op_types": ["Linear"], "exclude_op_names": ["lm_head"]}
    entry |= {"target_names": list(settings), "target_settings": settings}
    session = tersely.quantize(model, [entry], algorithm="rtn", data=[TOKENS])
    session.export("compressed_tensors", tmp_path / "m", example_inputs=TOKENS)
    return transformers.LlamaForCausalLM.from_pretrained(tmp_path / "m").eval()


def in_floats(model):
    layers = [one for one in model.modules() if hasattr(one, "quantization_status")]
    return [one for one in layers if one.weight.is_floating_point() and not one.weight.is_meta]


def test_one_layer_at_a_time_is_floats(loaded):
    from tersely_export.for_compressed_tensors.running import run_compressed

    counts = []
    for layer in loaded.modules():
        if isinstance(layer, nn.Linear):
            layer.register_forward_hook(lambda *_: counts.append(len(in_floats(loaded))))

    with torch.no_grad():
        found = run_compressed(loaded, lambda: loaded(**TOKENS).logits)
        # The library has all of them as floats from here on.
        expected = loaded(**TOKENS).logits

    assert torch.equal(found, expected)
    assert set(counts[: len(counts) // 2]) <= {0, 1}
    assert len(in_floats(loaded)) == 14


def test_the_model_is_as_it_was_loaded(loaded):
    from tersely_export.for_compressed_tensors.running import run_compressed

    before = {name: one.data_ptr() for name, one in loaded.named_parameters()}

    run_compressed(loaded, lambda: loaded(**TOKENS))

    assert {name: one.data_ptr() for name, one in loaded.named_parameters()} == before
    layers = [one for one in loaded.modules() if hasattr(one, "quantization_status")]
    assert all(not one._forward_pre_hooks and not one._forward_hooks for one in layers)


def test_a_model_that_reads_a_weight_without_its_layer_runs_as_well(loaded):
    from tersely_export.for_compressed_tensors.running import run_compressed

    layer = loaded.model.layers[1].mlp.up_proj

    def call():
        return loaded(**TOKENS).logits + layer.weight.float().sum()

    with torch.no_grad():
        found = run_compressed(loaded, call)

        assert torch.equal(found, call())


def test_a_model_that_multiplies_by_a_weight_without_its_layer_runs_as_well(loaded):
    from tersely_export.for_compressed_tensors.running import run_compressed

    layer = loaded.model.layers[1].mlp.up_proj

    def call():
        loaded(**TOKENS)
        return nn.functional.linear(torch.eye(64), layer.weight)

    with torch.no_grad():
        found = run_compressed(loaded, call)

    assert torch.equal(found, layer.weight.T)


def test_what_is_wrong_with_the_call_is_told(loaded):
    from tersely_export.for_compressed_tensors.running import run_compressed

    with pytest.raises(ValueError, match="input_ids"):
        run_compressed(loaded, loaded)
