"""Averages with copies from before entries came: a shape error, never a wrong pair."""

import copy

import pytest
import torch
from averages import ByName, InOrder, WithBuffers, WithTorch
from messages.sessions import NOTHING_KEPT
from torch import nn

import tersely

WAYS = [WithTorch, WithBuffers, ByName, InOrder]
LINEAR = {"op_types": ["Linear"]}
QUANTIZED = {**LINEAR, "target_names": ["_input_", "weight"], "quant_dtype": "int8"}


def stage(algorithm, entry, **keys):
    return {"algorithm": algorithm, "config_list": [entry], **keys}


RECIPES = {
    "lsq": {"quantization": stage("lsq", QUANTIZED)},
    "lsq_plus": {"quantization": stage("lsq_plus", {**QUANTIZED, "quant_scheme": "affine"})},
    "smoothquant": {"quantization": stage("smoothquant", QUANTIZED)},
    "awq": {"quantization": stage("awq", {**LINEAR, "quant_dtype": "int4"})},
    "one block": {
        "pruning": stage(
            "level",
            {
                **LINEAR,
                "target_names": ["weight"],
                "sparse_threshold": 9.0,
                "granularity": [-1, -1],
            },
        )
    },
}


def network():
    torch.manual_seed(1)
    # Layers alike, so that entries that are shifted by one layer fit each other.
    return nn.Sequential(*(nn.Linear(4, 4) for _ in range(3)))


def attached(kind):
    model = network()
    return model, tersely.attach(model, RECIPES[kind])


def compress(session):
    session.calibrate([torch.randn(16, 4)])
    session.compress()


@pytest.mark.filterwarnings(f"ignore:.*{NOTHING_KEPT}:UserWarning")  # whole layers are masked here
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", RECIPES)
def test_a_copy_from_before_compress_is_not_averaged(kind, way):
    model, session = attached(kind)
    average = way(model)
    compress(session)
    with pytest.raises((RuntimeError, ValueError), match=r"shape|size|dimension|shorter|longer"):
        average.update(model)


@pytest.mark.filterwarnings(f"ignore:.*{NOTHING_KEPT}:UserWarning")  # whole layers are masked here
@pytest.mark.parametrize("kind", ["lsq", "lsq_plus", "smoothquant", "awq"])
def test_a_copy_from_after_compress_is_averaged(kind):
    model, session = attached(kind)
    compress(session)
    average = InOrder(model)
    average.update(model)
    x = torch.randn(3, 4)
    torch.testing.assert_close(average.model.eval()(x), model.eval()(x))


def test_a_mask_of_one_element_is_not_averaged_into_a_place_without_one():
    model = nn.Sequential(nn.Linear(1, 1, bias=False))
    entry = {"op_types": ["Linear"], "sparse_threshold": 9.0}
    session = tersely.attach(model, {"pruning": stage("level", entry)})
    early = ByName(model)
    with pytest.warns(UserWarning, match=NOTHING_KEPT):
        session.compress()
    with pytest.raises(RuntimeError, match="size of tensor"):
        early.update(model)


def test_what_is_learned_from_a_period_on_is_not_averaged_with_a_copy_from_before():
    model = network()
    pruned = stage("movement", {**LINEAR, "sparse_ratio": 0.5}, options={"cooldown_begin_step": 2})
    scaled = stage("lsq", {**LINEAR, "quant_dtype": "int8"})
    recipe = {"stages": [{"pruning": pruned, "until": 2}, {"quantization": scaled}]}
    session = tersely.attach(model, recipe)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def step():
        model(torch.randn(8, 4)).square().mean().backward()
        optimizer.step()
        session.step()

    session.calibrate([torch.randn(8, 4)])
    step()
    early = InOrder(model)
    step()
    with pytest.raises((RuntimeError, ValueError), match=r"shape|size|dimension|shorter|longer"):
        early.update(model)


@pytest.mark.parametrize("kind", ["lsq", "lsq_plus", "smoothquant", "awq"])
def test_a_checkpoint_from_before_compress_leaves_the_scales_of_the_model(kind):
    model, session = attached(kind)
    early = copy.deepcopy(model.state_dict())
    compress(session)
    late = copy.deepcopy(model.state_dict())
    model.load_state_dict(early)
    for name, value in model.state_dict().items():
        assert torch.equal(value, late[name] if "_tersely_" in name else early[name]), name


@pytest.mark.parametrize("kind", ["lsq", "lsq_plus", "smoothquant", "awq"])
def test_a_checkpoint_from_after_compress_is_loaded_before_it(kind):
    model, session = attached(kind)
    compress(session)
    late = copy.deepcopy(model.state_dict())
    fresh, _ = attached(kind)
    fresh.load_state_dict(late)
    x = torch.randn(3, 4)
    assert torch.equal(fresh.eval()(x), model.eval()(x))
    assert [one.shape for one in fresh.state_dict().values()] == [
        one.shape for one in late.values()
    ]


def test_entries_are_counted_again_after_an_error_and_after_a_session_was_loaded(tmp_path):
    model, session = attached("lsq")
    early = copy.deepcopy(model)
    with pytest.raises(tersely.SessionError):
        session.compress()
    InOrder(model).update(early)
    compress(session)
    session.save(tmp_path / "session")
    again = network()
    tersely.load_session(again, tmp_path / "session")
    late = InOrder(model)
    late.update(again)
    assert late.model[0].weight.isfinite().all()


@pytest.mark.parametrize("kind", ["lsq", "smoothquant"])
def test_a_finished_model_holds_no_count(kind):
    model, session = attached(kind)
    compress(session)
    with pytest.warns(UserWarning, match="stay instrumented"):
        session.finalize()
    assert not [name for name in model.state_dict() if name.endswith("layout")]


@pytest.mark.parametrize("kind", ["lsq", "lsq_plus", "smoothquant", "awq"])
def test_a_loaded_session_has_its_entries_in_the_same_order(kind, tmp_path):
    model, session = attached(kind)
    compress(session)
    session.save(tmp_path / "session")
    again = network()
    tersely.load_session(again, tmp_path / "session")
    assert list(again.state_dict()) == list(model.state_dict())


def test_an_input_whose_blocks_are_one_is_loaded_again(tmp_path):
    model = network()
    entry = {**QUANTIZED, "granularity": [1, -1]}
    session = tersely.attach(model, {"quantization": stage("ptq", entry)})
    compress(session)
    session.save(tmp_path / "session")
    again = network()
    tersely.load_session(again, tmp_path / "session")
    x = torch.randn(16, 4)
    assert torch.equal(again.eval()(x), model.eval()(x))
