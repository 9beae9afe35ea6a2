"""Every preset, planned and in force on models of several kinds."""

import pytest
import torch
from messages.planning import NO_SUCH_NAME, NO_TARGET_REACHED
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
        f"quantization.exclude_op_names[1]: 'nope': {NO_SUCH_NAME}"
    ]
    assert {one.module for one in plan} == {"0"}


def test_a_preset_that_finds_nothing_in_a_model_says_so() -> None:
    with pytest.raises(tersely.PlanError, match=NO_TARGET_REACHED):
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


def with_norms() -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 16, 4)
    )
    model(torch.randn(16, 3, 6, 6))
    return model.eval()


IMAGES = torch.randn(4, 3, 6, 6, generator=torch.Generator().manual_seed(0))
KEPT = "the preset does not fold batch norms, so they run in floats"


def folded(plan: tersely.Plan) -> list[tuple[str, ...]]:
    return [names for stage in plan.recipe.stages for names in stage.folded]


@pytest.mark.parametrize("algorithm", [None, "gptq", "qat"])
def test_a_preset_folds_batch_norms(algorithm: str | None) -> None:
    model = with_norms()
    with torch.no_grad():
        dense = model(IMAGES)

    session = tersely.quantize(model, preset="w8a8", algorithm=algorithm, data=[IMAGES])

    assert folded(session.plan) == [("0", "1", "2")]
    assert "quantization: the preset folds 0 + 1 + 2" in session.plan.hints
    with torch.no_grad():
        assert (model(IMAGES) - dense).norm() < 0.05 * dense.norm()


def test_the_first_batch_of_what_is_read_once_is_the_example_and_is_calibrated_with() -> None:
    seen, listed = with_norms(), with_norms()
    batches = [IMAGES, 3 * IMAGES]

    session = tersely.quantize(seen, preset="w8a8", data=iter(batches))
    tersely.quantize(listed, preset="w8a8", data=batches)

    assert folded(session.plan) == [("0", "1", "2")]
    with torch.no_grad():
        assert torch.equal(seen(IMAGES), listed(IMAGES))


@pytest.mark.parametrize("written", ["none", [["0", "1"]]])
def test_a_stage_that_says_what_it_folds_folds_no_more(written: object) -> None:
    session = tersely.quantize(with_norms(), preset="w8a8", fuse_names=written, data=[IMAGES])

    assert folded(session.plan) == ([] if written == "none" else [("0", "1")])
    assert not any("the preset" in hint for hint in session.plan.hints)


def test_an_entry_that_says_what_it_folds_speaks_for_its_stage() -> None:
    entry = {"op_names": ["0"], "target_names": ["weight"], "quant_dtype": "int4"}
    stage = {"preset": "w8a8", "config_list": [{**entry, "fuse_names": "none"}]}

    plan = tersely.plan(with_norms(), {"quantization": stage}, example_inputs=IMAGES)

    assert folded(plan) == []


@pytest.mark.parametrize(
    ("example", "why"),
    [(None, "there are no example inputs"), (torch.ones(1, 2), "does not run")],
)
def test_a_preset_that_cannot_find_what_folds_says_so(example: object, why: str) -> None:
    recipe = {"quantization": {"preset": "w8a8"}}

    plan = tersely.plan(with_norms(), recipe, example_inputs=example)
    without = tersely.plan(nn.Linear(4, 4), recipe, example_inputs=None)

    [hint] = [one for one in plan.hints if KEPT in one]
    assert why in hint
    assert "fuse_names: none" in hint
    assert not any(KEPT in one for one in without.hints)


def test_an_algorithm_that_divides_inputs_keeps_batch_norms() -> None:
    stage = {"preset": "w8a8", "algorithm": "smoothquant"}

    plan = tersely.plan(with_norms(), {"quantization": stage}, example_inputs=IMAGES)

    assert folded(plan) == []
    assert any("smoothquant needs them to absorb the factors" in one for one in plan.hints)


@pytest.mark.parametrize("example", [None, IMAGES], ids=["no_example", "example"])
@pytest.mark.parametrize(
    ("stage", "wanted"),
    [
        ({"preset": "w4a16"}, False),
        ({"preset": "w4a16", "algorithm": "awq"}, False),
        ({"preset": "w8a8", "algorithm": "smoothquant"}, True),
        ({"preset": "w8a8", "algorithm": "smoothquant", "exclude_op_names": ["0"]}, False),
    ],
    ids=["linear", "awq", "smoothquant", "linear_smoothquant"],
)
def test_only_norms_that_a_quantized_layer_could_take_up_are_told(
    stage: dict[str, object], example: object, *, wanted: bool
) -> None:
    plan = tersely.plan(with_norms(), {"quantization": stage}, example_inputs=example)

    assert any(KEPT in one for one in plan.hints) == wanted


def test_a_norm_before_a_quantized_layer_is_not_told() -> None:
    model = nn.Sequential(nn.BatchNorm1d(8), nn.Linear(8, 4)).eval()
    stage = {"preset": "w8a8", "algorithm": "smoothquant"}

    plan = tersely.plan(model, {"quantization": stage}, example_inputs=torch.randn(2, 8))

    assert not any(KEPT in one for one in plan.hints)


@pytest.mark.parametrize("has_example", [False, True])
def test_a_plan_keeps_what_its_preset_folded(*, has_example: bool) -> None:
    recipe = {"quantization": {"preset": "w8a8"}}
    example = IMAGES if has_example else None
    plan = tersely.plan(with_norms(), recipe, example_inputs=example)

    again = tersely.plan(with_norms(), plan.recipe.document, example_inputs=IMAGES)

    assert folded(again) == folded(plan)


def test_a_session_whose_preset_folded_is_loaded_as_it_was(tmp_path) -> None:
    model, fresh = with_norms(), with_norms()
    tersely.quantize(model, preset="w8a8", data=[IMAGES]).save(tmp_path)

    tersely.load_session(fresh, tmp_path)

    with torch.no_grad():
        assert torch.equal(fresh(IMAGES), model(IMAGES))


def test_a_preset_with_embeddings_corrects_the_other_layers():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(32, 16), nn.Linear(16, 8)).eval()
    before, options = model[1].bias.detach().clone(), {"bias_correction": True}

    session = tersely.quantize(model, preset="w8a8", options=options, data=[torch.arange(32)[None]])

    assert set(session.qparams()) == {"0", "1"}
    assert not torch.equal(model[1].bias, before)


def test_a_preset_for_executorch_names_the_convolutions_that_its_format_takes() -> None:
    images = torch.randn(2, 3, 8, 8)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.ConvTranspose2d(8, 4, 2)).eval()

    session = tersely.quantize(model, preset="w8a8", runtime="executorch", data=[images])

    assert set(session.qparams()) == {"0"}
