"""``hold: step`` beside what else changes weights: solving, quantization, shrinking, distillation."""

import copy

import pytest
import torch
from torch import nn

import tersely


def build():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 8))


def batches():
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(16, 8, generator=generator) for _ in range(4)]


def entry(**keys):
    return {"op_types": ["Linear"], "target_names": ["weight"], **keys}


def pruning(hold, algorithm="level", granularity="default", **keys):
    config = entry(sparse_ratio=0.5, granularity=granularity)
    return {"algorithm": algorithm, "hold": hold, "config_list": [config], **keys}


def compressed(recipe):
    model = build()
    session = tersely.attach(model, recipe)
    session.calibrate(batches())
    session.compress()
    return model, session


def train(model, session, steps):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    for batch in (batches() * steps)[:steps]:
        optimizer.zero_grad()
        session.total_loss(model(batch).square().mean()).backward()
        optimizer.step()
        session.step()


RECIPES = {
    "sparsegpt": lambda hold: {"pruning": pruning(hold, "sparsegpt")},
    "wanda along a schedule": lambda hold: {
        "pruning": pruning(hold, "wanda", schedule={"name": "linear", "times": 3})
    },
    "gptq": lambda hold: {
        "pruning": pruning(hold),
        "quantization": {"algorithm": "gptq", "config_list": [entry(quant_dtype="int4")]},
    },
    "qat": lambda hold: {
        "pruning": pruning(hold, schedule={"name": "linear", "times": 3}),
        "quantization": {"algorithm": "qat", "config_list": [entry()]},
    },
}


@pytest.mark.parametrize("case", RECIPES)
def test_outputs_are_those_of_masks_on_read(case):
    outputs = []
    for hold in ("read", "step"):
        model, session = compressed(RECIPES[case](hold))
        outputs.append([model(batches()[0])])
        train(model, session, 4)
        outputs[-1].append(model(batches()[0]))
        session.finalize()
        outputs[-1].append(model(batches()[0]))
    for read, step in zip(*outputs, strict=True):
        assert torch.equal(read, step)


@pytest.mark.parametrize("case", RECIPES)
def test_the_dense_model_comes_back_bit_for_bit(case):
    model, session = compressed(RECIPES[case]("step"))
    session.step()
    session.detach()
    for mine, dense in zip(model.parameters(), build().parameters(), strict=True):
        assert torch.equal(mine, dense)


@pytest.mark.parametrize("case", RECIPES)
def test_a_saved_session_goes_on_bit_for_bit(case, tmp_path):
    model, session = compressed(RECIPES[case]("step"))
    train(model, session, 2)
    session.save(tmp_path / "session")
    other = build()
    state = model.state_dict()
    other.load_state_dict({name: one for name, one in state.items() if "_tersely" not in name})
    resumed = tersely.load_session(other, tmp_path / "session")
    if case.startswith("wanda"):
        session.calibrate(batches())
        resumed.calibrate(batches())
    for one, its in ((model, session), (other, resumed)):
        train(one, its, 2)
        its.detach()
    for mine, theirs in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_a_held_model_shrinks_to_what_it_computes():
    model = build()
    config = {"op_names": ["0"], "sparse_ratio": 0.5, "granularity": "out_channel"}
    aligned = {"bias": {"align": {"target_name": "weight", "dims": [0]}}}
    stage = {"algorithm": "level", "hold": "step"}
    stage["config_list"] = [{**config, "target_settings": aligned}]
    session = tersely.attach(model, {"pruning": stage})
    session.compress()
    expected = model(batches()[0])
    session.shrink(batches()[0])
    assert model[0].weight.shape == (8, 8)
    torch.testing.assert_close(model(batches()[0]), expected)
    train(model, session, 1)
    session.detach()


def test_masked_elements_that_stay_in_a_small_model_keep_their_dense_values():
    model = build()
    dense = model[0].weight.detach().clone()
    mask = torch.ones(16, 8, dtype=torch.bool)
    mask[:4] = False
    mask[4, :3] = False
    config = {"op_names": ["0"], "sparse_ratio": 0.5}
    stage = {"algorithm": "level", "hold": "step", "config_list": [config]}
    session = tersely.attach(model, {"pruning": stage})
    session.set_masks({"0": {"weight": mask}})
    session.shrink(batches()[0])
    assert model[0].weight.shape == (12, 8)
    assert not bool(model[0].weight[0, :3].any())
    session.detach()
    assert torch.equal(model[0].weight, dense[4:])


def test_a_frozen_copy_computes_what_the_model_does():
    model, session = compressed(RECIPES["gptq"]("step"))
    twin = copy.deepcopy(model)
    assert torch.equal(twin(batches()[0]), model(batches()[0]))
    session.detach()


def test_weights_are_dense_again_when_quantization_fails_after_they_were_masked_in_place():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3))
    before = model[0].weight.detach().clone()
    entry = {"op_types": ["Linear"], "target_names": ["weight"]}
    pruning = {
        "algorithm": "level",
        "hold": "step",
        "config_list": [{**entry, "sparse_ratio": 0.5}],
    }
    quantization = {"algorithm": "gptq", "config_list": [{**entry, "quant_dtype": "float8_e5m2"}]}
    session = tersely.attach(model, {"pruning": pruning, "quantization": quantization})
    session.calibrate([torch.randn(8, 4)])

    with pytest.raises(tersely.PlanError, match="rounds to integers"):
        session.compress()

    assert torch.equal(model[0].weight, before)
    assert torch.equal(dict(model.named_parameters())["0.weight"], before)
