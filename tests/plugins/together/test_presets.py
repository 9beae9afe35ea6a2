"""Every preset, planned and in force on models of several kinds."""

import pytest
import torch
from torch import nn

import tersely
from tersely.document.presets import _presets
from tersely.planning.resolve import PlanWarning

EVERY = [
    (name, runtime) for name, one in _presets().items() for runtime in (None, *one["runtimes"])
]


class Mixed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(16, 8)
        self.conv = nn.Conv1d(8, 128, 3, padding=1)
        self.act = nn.ReLU()
        self.head = nn.Linear(128, 4)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.head(self.act(self.conv(self.words(tokens).mT)).mT)


@pytest.mark.parametrize(("name", "runtime"), EVERY)
def test_a_preset_comes_into_force_and_changes_little(name: str, runtime: str | None) -> None:
    torch.manual_seed(0)
    model = Mixed().eval()
    tokens = torch.randint(16, (4, 12))
    with torch.no_grad():
        dense = model(tokens)

    session = tersely.quantize(model, preset=name, runtime=runtime, data=[tokens] * 2)

    with torch.no_grad():
        error = (model(tokens) - dense).norm() / dense.norm()
    assert 0 < error < 0.2
    assert "head" in session.qparams()


def test_an_exclude_of_a_preset_that_matches_nothing_is_reported_once() -> None:
    recipe = {"quantization": {"preset": "w8a8", "exclude_op_names": ["1", "nope"]}}
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))

    with pytest.warns(PlanWarning, match="1 matched nothing"):
        plan = tersely.plan(model, recipe)

    assert [str(one) for one in plan.unmatched] == [
        "quantization.exclude_op_names[1]: 'nope': no module has this name"
    ]
    assert {one.module for one in plan} == {"0"}


def test_a_preset_that_finds_nothing_in_a_model_says_so() -> None:
    with pytest.raises(tersely.PlanError, match="reaches no target of this model"):
        tersely.quantize(nn.Sequential(nn.ReLU()), preset="w4a16")


def test_a_runtime_without_a_preset_is_an_error() -> None:
    entries = [{"op_types": ["Linear"]}]

    with pytest.raises(tersely.ConfigError, match="'for' belongs to a 'preset'"):
        tersely.quantize(nn.Linear(1, 1), entries, algorithm="rtn", runtime="vllm")


def test_a_session_with_a_preset_is_loaded_as_it_was(tmp_path) -> None:
    torch.manual_seed(0)
    model = Mixed()
    tokens = torch.randint(16, (2, 6))
    session = tersely.quantize(model, preset="w8a8", runtime="onnxruntime", data=[tokens])
    session.save(tmp_path)
    again = Mixed()
    again.load_state_dict(
        {key: value for key, value in model.state_dict().items() if "_tersely_" not in key}
    )

    tersely.load_session(again, tmp_path)

    with torch.no_grad():
        assert torch.equal(again.eval()(tokens), model.eval()(tokens))


@pytest.mark.parametrize("name", ["w8a8", "w8a8_dynamic"])
def test_a_reduced_range_leaves_room_for_two_products_in_16_bits(name: str) -> None:
    torch.manual_seed(0)
    model = Mixed().eval()
    tokens = torch.randint(16, (4, 12))

    session = tersely.quantize(
        model, preset=name, runtime="onnxruntime", reduce_range=True, data=[tokens]
    )

    largest = {
        module: int(found["weight"].values.abs().max())
        for module, found in session.integer_weights().items()
    }
    assert largest.pop("words") == 127
    assert all(2 * 255 * one < 2**15 for one in largest.values())


def test_a_reduced_range_without_a_preset_is_an_error() -> None:
    with pytest.raises(tersely.ConfigError, match="'reduce_range' belongs to a 'preset'"):
        tersely.quantize(nn.Linear(1, 1), [{"op_types": ["Linear"]}], reduce_range=True)


def test_smoothquant_takes_a_preset_with_embeddings_in_one_stage():
    torch.manual_seed(0)
    words = nn.Sequential(nn.Embedding(16, 8), nn.Linear(8, 4))
    table = words[0].weight.detach().clone()
    tokens = torch.randint(0, 16, (4, 6))

    session = tersely.quantize(
        words, preset="w8a8", runtime="onnxruntime", algorithm="smoothquant", data=[tokens]
    )

    found = session.qparams()
    assert {name: set(targets) for name, targets in found.items()} == {
        "0": {"weight"},
        "1": {"weight", "_input_"},
    }
    torch.testing.assert_close(
        found["0"]["weight"].scale.flatten(), table.abs().amax(1) / 127, rtol=1e-6, atol=0
    )
