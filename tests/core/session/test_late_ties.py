"""Parameters that are tied, untied or exchanged while a session is attached."""

import copy

import pytest
import torch
from torch import nn

import tersely

pytestmark = pytest.mark.usefixtures("toy_pruners")


class Language(nn.Module):
    """An embedding, a layer, and a head that may share the embedding's table."""

    def __init__(self, *, is_tied):
        super().__init__()
        torch.manual_seed(0)
        self.table = nn.Embedding(8, 4)
        self.body = nn.Linear(4, 4)
        self.head = nn.Linear(4, 8, bias=False)
        if is_tied:
            self.head.weight = self.table.weight

    def forward(self, tokens):
        return self.head(self.body(self.table(tokens)))


def attached(*names, is_tied=False):
    model = Language(is_tied=is_tied)
    entry = {"op_names": list(names), "target_names": ["weight"], "sparse_ratio": 0.5}
    return tersely.prune(model, [entry], algorithm="toy")


def raw(model, name):
    return dict(model.named_parameters(remove_duplicate=False))[name]


CALLS = pytest.mark.parametrize("call", ["step", "compress", "report", "finalize"])


@CALLS
@pytest.mark.parametrize("names", [["head"], ["table"], ["table", "head"]])
@pytest.mark.parametrize(("to", "of"), [("head", "table"), ("table", "head")])
def test_a_late_tie_is_noticed_with_both_names(call, names, to, of):
    session = attached(*names)
    model = session.model
    getattr(model, to).weight = raw(model, f"{of}.weight")
    with pytest.raises(tersely.SessionError, match=rf"{call}.. found that \w+\.weight became") as e:
        getattr(session, call)()
    assert "head.weight" in str(e.value)
    assert "table.weight" in str(e.value)


@CALLS
def test_an_untied_parameter_is_noticed_with_both_names(call):
    session = attached("head", is_tied=True)
    session.model.head.weight = nn.Parameter(torch.ones(8, 4))
    with pytest.raises(tersely.SessionError, match=r"weight is no longer the same as \w+\.weight"):
        getattr(session, call)()


def test_parameters_that_changed_places_are_noticed():
    entry = {"op_names": ["0"], "target_names": ["weight"], "sparse_ratio": 0.5}
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    session = tersely.prune(model, [entry], algorithm="toy")
    first, second = raw(model, "0.weight"), raw(model, "1.weight")
    model[0].weight, model[1].weight = second, first
    with pytest.raises(tersely.SessionError, match=r"0\.weight was replaced by the .* 1\.weight"):
        session.step()


def test_a_late_tie_is_noticed_when_the_session_is_saved(tmp_path):
    session = attached("head")
    session.model.head.weight = raw(session.model, "table.weight")
    with pytest.raises(tersely.SessionError, match=r"save.. found that head\.weight became"):
        session.save(tmp_path / "session")


def test_a_late_tie_to_a_module_that_came_later_is_noticed_at_the_end():
    session = attached("head")
    session.model.other = nn.Linear(4, 8, bias=False)
    session.model.other.weight = raw(session.model, "head.weight")
    session.step()
    with pytest.raises(tersely.SessionError, match=r"head\.weight became .* as other\.weight"):
        session.finalize()


def test_a_tie_that_was_undone_goes_on():
    session = attached("head")
    before = raw(session.model, "head.weight")
    session.model.head.weight = raw(session.model, "table.weight")
    session.model.head.weight = before
    session.step()
    assert int((session.finalize().head.weight == 0).sum()) == 16


def test_a_parameter_of_its_own_goes_on():
    session = attached("head")
    session.model.head.weight = nn.Parameter(torch.ones(8, 4))
    session.step()
    assert int((session.finalize().head.weight == 0).sum()) == 16


def test_loading_by_assignment_goes_on():
    session = attached("head", "body")
    for _ in range(3):
        state = {key: value.clone() for key, value in session.model.state_dict().items()}
        session.model.load_state_dict(state, assign=True)
        session.step()
    assert session.steps == 3


def test_modules_that_are_no_targets_may_be_tied_late():
    session = attached("body")
    session.model.head.weight = session.model.table.weight
    session.step()
    assert session.finalize().head.weight is session.model.table.weight


@pytest.mark.parametrize(("to", "of"), [("head", "table"), ("table", "head")])
def test_tying_what_is_tied_already_changes_nothing(to, of):
    session = attached("head", is_tied=True)
    model = session.model
    before = raw(model, "head.weight")
    getattr(model, to).weight = getattr(model, of).weight
    session.step()
    assert raw(model, "head.weight") is raw(model, "table.weight") is before


def test_what_a_target_shows_is_refused_as_another_module_s_parameter():
    session = attached("head")
    before = raw(session.model, "table.weight")
    with pytest.raises(tersely.SessionError, match=r"what head\.weight shows is computed"):
        session.model.table.weight = session.model.head.weight
    assert raw(session.model, "table.weight") is before
    assert session.model(torch.tensor([1])).shape == (1, 8)


def test_what_a_frozen_target_shows_is_refused_too():
    session = attached("head")
    session.model.requires_grad_(False)
    with pytest.raises(tersely.SessionError, match=r"what head\.weight shows is computed"):
        session.model.table.weight = session.model.head.weight


def test_a_parameter_of_its_own_made_of_what_is_shown_is_a_plain_one():
    session = attached("head")
    made = nn.Parameter(session.model.head.weight)
    session.model.table.weight = made
    assert type(made) is nn.Parameter
    assert raw(session.model, "table.weight") is made


def test_a_target_s_parameter_is_found_by_its_name():
    session = attached("head")
    found = session.model.get_parameter("head.weight")
    assert torch.equal(found, session.model.head.weight)


def test_a_copy_of_an_attached_model_may_be_tied():
    other = copy.deepcopy(attached("head").model)
    other.head.weight = raw(other, "table.weight")
    assert other(torch.tensor([1])).shape == (1, 8)
