"""Masks that are edited and frozen: by name, in a schedule, in training, and after resuming."""

import pytest
import torch
from messages.blocks import wrong_mask
from messages.documents import found
from messages.planning import NO_SUCH_TARGET
from messages.sessions import COMPRESS_FIRST, asked_for
from torch import nn

import tersely
from tersely.reporting.report import SparsityWarning

pytestmark = pytest.mark.usefixtures("toy_pruners")

CONFIG = [{"op_types": ["Linear"], "sparse_ratio": 0.5}]
GRADUAL = {
    "pruning": {
        "algorithm": "toy_rows",
        "schedule": {"name": "toy_line", "every": 1, "times": 2},
        "config_list": [{"op_types": ["Linear"], "sparse_ratio": 0.5}],
    }
}
TOP = torch.arange(8)[:, None] < 2
"""Keeps the first two of eight rows."""


@pytest.fixture
def model(build):
    return build()


@pytest.fixture
def session(model):
    session = tersely.attach(model, GRADUAL)
    session.compress()
    return session


def rows(session, module="0"):
    return session.masks()[module]["weight"].any(1)


def grow(session, steps=2):
    for _ in range(steps):
        session.step()


def test_a_frozen_target_keeps_its_mask_while_the_schedule_goes_on(session):
    session.set_masks({"0": {"weight": TOP}})
    session.freeze(["0.weight"])
    grow(session)
    assert torch.equal(rows(session), TOP[:, 0])
    assert session.sparsity()["2"]["weight"] == 0.5


def test_an_edit_that_is_not_frozen_lasts_until_the_next_update(session):
    session.set_masks({"0": {"weight": TOP}})
    assert session.frozen == ()
    grow(session)
    assert int(rows(session).sum()) == 4


def test_freezing_leaves_the_mask_as_it_is(session):
    grow(session, 1)
    before = session.masks()
    session.freeze()
    assert session.frozen == ("0.weight", "2.weight")
    session.step()
    for module, targets in before.items():
        for target, mask in targets.items():
            assert torch.equal(session.masks()[module][target], mask)


def test_an_unfrozen_target_is_decided_on_at_the_next_update(session):
    session.set_masks({"0": {"weight": TOP}, "2": {"weight": torch.ones(2, 8).bool()}}, freeze=True)
    session.unfreeze(["0.weight"])
    assert session.frozen == ("2.weight",)
    assert torch.equal(rows(session), TOP[:, 0])
    grow(session)
    assert int(rows(session).sum()) == 4
    assert session.sparsity()["2"]["weight"] == 0


def test_everything_is_unfrozen_at_once(session):
    session.freeze()
    session.unfreeze()
    assert session.frozen == ()


def test_a_frozen_mask_is_edited_by_its_user_and_stays_frozen(session):
    session.freeze()
    session.set_masks({"0": {"weight": TOP}})
    assert session.frozen == ("0.weight", "2.weight")
    grow(session)
    assert torch.equal(rows(session), TOP[:, 0])


def test_followers_follow_an_edit_and_an_unfrozen_source(session):
    session.set_masks({"0": {"weight": TOP}}, freeze=True)
    assert torch.equal(session.masks()["0"]["bias"], TOP[:, 0])
    session.unfreeze()
    grow(session)
    assert torch.equal(session.masks()["0"]["bias"], rows(session))


def test_masked_weights_grow_back_and_learn_again(model, data):
    session = tersely.prune(model, CONFIG, algorithm="toy_rows")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    weight = dict(model.named_parameters())["0.weight"]
    dense = weight.detach().clone()
    masked = ~rows(session)

    def train():
        optimizer.zero_grad()
        model(data).square().sum().backward()
        optimizer.step()

    train()
    assert torch.equal(weight[masked], dense[masked])
    session.set_masks({"0": {"weight": torch.ones(1, 1).bool()}})
    assert torch.equal(model[0].weight, weight)
    assert bool(session.masks()["0"]["bias"].all())
    train()
    assert bool((weight[masked] != dense[masked]).any(1).any())


def test_a_frozen_session_resumes_bit_for_bit(session, build, data, tmp_path):
    session.set_masks({"0": {"weight": TOP}}, freeze=True)
    grow(session, 1)
    session.save(tmp_path)
    model = build()
    again = tersely.load_session(model, tmp_path)
    assert again.frozen == ("0.weight",)
    for one in (session, again):
        one.step()
    assert torch.equal(rows(again), TOP[:, 0])
    assert torch.equal(again.masks()["2"]["weight"], session.masks()["2"]["weight"])
    assert torch.equal(model(data), session.model(data))
    again.unfreeze()
    again.compress()
    assert int(rows(again).sum()) == 4


def test_a_frozen_target_leaves_its_global_group(build):
    entry = {"op_types": ["Linear"], "target_names": ["weight"], "sparse_ratio": 0.5}
    recipe = {"pruning": {"algorithm": "toy", "config_list": [{**entry, "global_group_id": "all"}]}}
    session = tersely.attach(build(), recipe)
    session.set_masks({"0": {"weight": torch.ones(8, 4).bool()}}, freeze=True)
    with pytest.warns(SparsityWarning, match=f"{asked_for(0)}\\.5, got 0\\.1667"):
        session.compress()
    # The budget is a half of the 16 elements that are left, not of all 48.
    assert session.sparsity() == {"0": {"weight": 0.0}, "2": {"weight": 0.5}}


def test_a_dependency_group_is_frozen_whole_or_not_at_all():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    entry = {"op_types": ["Linear"], "sparse_ratio": 0.5, "dependency_group_id": "stream"}
    session = tersely.prune(model, [entry], algorithm="toy_rows")
    message = (
        "0.weight would be frozen without 1.weight, which shares dependency_group_id 'stream' with "
        "it: they have one decision, so freeze or unfreeze the whole group"
    )
    for act in (
        lambda: session.freeze(["0.weight"]),
        lambda: session.set_masks({"0": {"weight": torch.ones(4, 4).bool()}}, freeze=True),
    ):
        with pytest.raises(tersely.SessionError) as caught:
            act()
        assert str(caught.value) == message
        assert session.sparsity()["0"]["weight"] == 0.5
    session.freeze()
    with pytest.raises(tersely.SessionError) as caught:
        session.unfreeze(["1.weight"])
    assert str(caught.value) == message
    assert session.frozen == ("0.weight", "1.weight")


@pytest.mark.parametrize("call", ["freeze", "unfreeze"])
@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (["0.wieght"], f"{NO_SUCH_TARGET} 0.wieght; did you mean 0.weight?"),
        (["0.bias"], "0.bias follows another target; freeze or unfreeze that one"),
        ("0.weight", found("the name '0.weight'", "a list of names: ['0.weight']")),
    ],
)
def test_a_name_that_is_wrong_is_an_error(session, call, targets, message):
    with pytest.raises(tersely.SessionError) as caught:
        getattr(session, call)(targets)
    assert str(caught.value) == message
    assert session.frozen == ()


def test_a_target_without_a_mask_is_not_frozen(build):
    session = tersely.attach(build(), GRADUAL)
    with pytest.raises(tersely.SessionError) as caught:
        session.freeze(["0.weight"])
    assert str(caught.value) == (
        f"0.weight has no mask to freeze; {COMPRESS_FIRST}, or give it one with "
        "session.set_masks(masks, freeze=True)"
    )


@pytest.mark.parametrize("call", ["freeze", "unfreeze"])
def test_a_finished_session_has_nothing_to_freeze(session, call):
    session.finalize()
    with pytest.raises(tersely.SessionError, match="finalized"):
        getattr(session, call)()


class Attention(nn.Module):
    """Attention whose scores enter a softmax of its own, so that they can be a target."""

    def __init__(self):
        super().__init__()
        self.query, self.key = nn.Linear(4, 4), nn.Linear(4, 4)
        self.softmax = nn.Softmax(-1)

    def forward(self, inputs):
        return self.softmax(self.query(inputs) @ self.key(inputs).mT)


CAUSAL = torch.ones(5, 5).tril().bool()


def attention(**setting):
    torch.manual_seed(0)
    entry = {"op_names": ["softmax"], "target_names": ["_input_"], "apply_method": "add", **setting}
    model = Attention()
    return model, tersely.attach(model, {"pruning": {"algorithm": "toy", "config_list": [entry]}})


def test_a_mask_is_added_to_scores_of_attention():
    model, session = attention()
    inputs = torch.randn(3, 5, 4)
    dense = model(inputs)
    session.set_masks({"softmax": {"_input_": CAUSAL}}, freeze=True)
    found = model(inputs)
    # exp(-1000) is 0, so what is left of each row is shared out among what is kept.
    kept = dense * CAUSAL
    torch.testing.assert_close(found, kept / kept.sum(-1, keepdim=True))
    assert int(found[:, ~CAUSAL].count_nonzero()) == 0
    assert torch.equal(session.masks()["softmax"]["_input_"], CAUSAL)
    session.compress()
    session.step()
    assert torch.equal(model(inputs), found)


def test_the_value_that_is_added_is_the_configs():
    model, session = attention(mask_value=-1.0)
    inputs = torch.randn(2, 5, 4)
    scores = model.query(inputs) @ model.key(inputs).mT
    session.set_masks({"softmax": {"_input_": CAUSAL}})
    expected = (scores - (~CAUSAL).float()).softmax(-1)
    torch.testing.assert_close(model(inputs), expected)


def test_masks_of_scores_resume_frozen_and_are_lifted_again(tmp_path):
    model, session = attention()
    inputs = torch.randn(2, 5, 4)
    dense = model(inputs)
    session.set_masks({"softmax": {"_input_": CAUSAL}}, freeze=True)
    session.save(tmp_path)
    again = Attention()
    again.load_state_dict(dict(model.named_parameters()))
    resumed = tersely.load_session(again, tmp_path)
    assert resumed.frozen == ("softmax._input_",)
    assert torch.equal(again(inputs), model(inputs))
    resumed.set_masks({"softmax": {"_input_": torch.ones(1, 1).bool()}})
    assert torch.equal(again(inputs), dense)


def test_a_mask_that_does_not_fit_what_calibration_saw_is_an_error():
    _, session = attention()
    session.calibrate([torch.randn(2, 5, 4)])
    with pytest.raises(tersely.SessionError) as caught:
        session.set_masks({"softmax": {"_input_": torch.ones(4, 4).bool()}})
    assert str(caught.value) == f"softmax._input_: {wrong_mask('[4, 4]', '[5, 5]')}"
    assert session.masks() == {}


def test_a_vector_over_channels_is_a_mask_of_an_output():
    model = nn.Sequential(nn.Conv1d(2, 3, 1))
    entry = {"op_names": ["0"], "target_names": ["_output_"]}
    recipe = {"pruning": {"algorithm": "toy_rows", "config_list": [{**entry, "sparse_ratio": 0.5}]}}
    session = tersely.attach(model, recipe)
    session.calibrate([torch.randn(2, 2, 4)])
    with pytest.raises(tersely.SessionError, match="expected \\[3, 4\\]"):
        session.set_masks({"0": {"_output_": torch.ones(4).bool()}})
    session.set_masks({"0": {"_output_": torch.tensor([True, False, True])}})
    assert model(torch.randn(2, 2, 4)).any(2).any(0).tolist() == [True, False, True]
