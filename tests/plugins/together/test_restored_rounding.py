"""Finished models of Transformers, saved and loaded by their own class, and rounded again."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import tersely

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.filterwarnings("ignore::tersely.session.finalizing.baking.FinalizeWarning")

TOKENS = {"input_ids": torch.arange(24).reshape(2, 12)}
SMALL = {"num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 60}


def bert() -> Any:
    config = transformers.BertConfig(hidden_size=32, intermediate_size=64, **SMALL)
    return transformers.BertModel(config)


def llama() -> Any:
    config = transformers.LlamaConfig(
        hidden_size=32,
        intermediate_size=64,
        num_key_value_heads=2,
        tie_word_embeddings=True,
        **SMALL,
    )
    return transformers.LlamaForCausalLM(config)


def gpt2() -> Any:
    config = transformers.GPT2Config(n_embd=32, n_layer=2, n_head=4, vocab_size=60)
    return transformers.GPT2LMHeadModel(config)


SMOOTH = {"preset": "w8a8", "algorithm": "smoothquant", "exclude_op_types": ["Embedding"]}
CONV1D = {"op_types": ["Conv1D"], "target_names": ["_input_", "weight"]}


def outputs(model: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(**TOKENS)[0]
    return found


def made(build: Callable[[], Any]) -> Any:
    torch.manual_seed(0)
    model = build().eval()
    with torch.no_grad():
        for name, value in model.named_parameters():
            if "norm" in name.lower() and name.endswith("weight"):
                value[::8] *= 8  # channels that stand out, as those of trained models do
    return model


def finished(build: Callable[[], Any], stage: Any) -> tuple[Any, torch.Tensor]:
    model = made(build)
    session = tersely.attach(model, {"quantization": stage})
    session.calibrate([TOKENS])
    session.compress()
    simulated = outputs(model)
    return session.finalize(), simulated


@pytest.mark.parametrize(
    ("build", "stage"),
    [
        (bert, {"preset": "w8a8", "for": "onnxruntime"}),
        (bert, {"preset": "w8a8_dynamic"}),
        (bert, SMOOTH),
        (llama, SMOOTH),
        (gpt2, {"algorithm": "rtn", "config_list": [CONV1D]}),
    ],
    ids=["static", "by each token", "factors", "factors that fold", "GPT-2"],
)
def test_a_loaded_model_computes_as_the_finished_one(
    build: Callable[[], Any], stage: Any, tmp_path: Path
) -> None:
    model, simulated = finished(build, stage)
    model.save_pretrained(tmp_path)
    loaded = type(model).from_pretrained(tmp_path).eval()

    torch.testing.assert_close(outputs(model), simulated, atol=1e-5, rtol=1e-5)
    assert not torch.equal(outputs(loaded), outputs(model))
    assert tersely.restore_rounding(loaded) is loaded
    assert torch.equal(outputs(loaded), outputs(model))


def test_without_restoring_only_the_rounding_of_inputs_is_missing(tmp_path: Path) -> None:
    model, simulated = finished(bert, {"preset": "w8a8"})
    model.save_pretrained(tmp_path)
    loaded = type(model).from_pretrained(tmp_path).eval()

    for name, value in loaded.state_dict().items():
        assert torch.equal(value, model.state_dict()[name])
    # A step of an input is at most its range divided by 255.
    assert (outputs(loaded) - simulated).abs().max() < 0.1


def test_a_tied_head_is_stored_once_and_nothing_of_ours_is(tmp_path: Path) -> None:
    weights = [
        {"op_types": ["Linear"], "target_names": ["weight"], "exclude_op_names": ["lm_head"]}
    ]
    model, simulated = finished(llama, {"algorithm": "rtn", "config_list": weights})
    model.save_pretrained(tmp_path)

    stored = set(load_file(tmp_path / "model.safetensors"))
    assert stored == set(made(llama).state_dict()) - {"lm_head.weight"}
    assert torch.equal(outputs(type(model).from_pretrained(tmp_path).eval()), simulated)
    assert "tersely" not in json.loads((tmp_path / "config.json").read_text())


def test_the_state_of_a_finished_model_loads_strictly_in_its_class() -> None:
    model, _ = finished(bert, {"preset": "w8a8"})

    made(bert).load_state_dict(model.state_dict())


def test_the_config_says_what_is_rounded(tmp_path: Path) -> None:
    model, _ = finished(bert, {"preset": "w8a8"})
    model.save_pretrained(tmp_path)
    stated = json.loads((tmp_path / "config.json").read_text())["tersely"]

    assert stated["format"] == 1
    first = stated["rounded"][0]
    assert set(first) == {
        *("module", "target", "quant_dtype", "quant_scheme", "granularity", "scale", "zero_point"),
    }
    assert (first["target"], first["quant_dtype"]) == ("_input_", "uint8")
    # Two layers of six linear layers each, and the pooler.
    assert len(stated["rounded"]) == 13


def test_a_model_whose_config_says_nothing_stays_as_it_is() -> None:
    model = made(bert)
    before = outputs(model)

    assert tersely.restore_rounding(model) is model
    assert torch.equal(outputs(model), before)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("preset", ["w8a8", "w8a8_dynamic"])
def test_a_converted_model_gets_back_what_no_file_holds(
    preset: str, dtype: torch.dtype, tmp_path: Path
) -> None:
    model, simulated = finished(lambda: llama().to(dtype), {"preset": preset})
    model.save_pretrained(tmp_path)

    loaded = transformers.LlamaForCausalLM.from_pretrained(tmp_path).eval()
    assert loaded.model.rotary_emb.inv_freq.dtype == torch.float32
    tersely.restore_rounding(loaded)

    assert loaded.model.rotary_emb.inv_freq.dtype == dtype
    assert torch.equal(outputs(loaded), simulated)


@pytest.mark.parametrize(
    ("stated", "message"),
    [
        ({"format": 2}, "format 2, expected 1"),
        ("int8", "format 'int8', expected 1"),
        ({"format": 1, "rounded": [{"module": "pooler.dense"}]}, "damaged"),
        ({"format": 1, "rounded": 3}, "damaged"),
        ({"format": 1, "rounded": [], "buffers": {"a": "float17"}}, "no type 'float17'"),
    ],
)
def test_a_config_that_was_changed_is_an_error(stated: Any, message: str) -> None:
    model = made(bert)
    model.config.tersely = stated

    with pytest.raises(tersely.SessionFileError, match=message):
        tersely.restore_rounding(model)


def test_what_is_no_module_is_an_error() -> None:
    with pytest.raises(tersely.PlanError, match=r"torch\.nn\.Module, found str"):
        tersely.restore_rounding("bert")


def test_a_config_of_another_model_is_an_error_and_changes_nothing(tmp_path: Path) -> None:
    model, _ = finished(bert, {"preset": "w8a8"})
    other = made(llama)
    before = outputs(other)
    other.config.tersely = model.config.tersely

    with pytest.raises(tersely.PlanError, match="attention"):
        tersely.restore_rounding(other)
    assert torch.equal(outputs(other), before)
