"""Parameters of quantized, learned and held targets that are tied while a session is attached."""

import pytest
import torch
from torch import nn

import tersely

PRUNED = [{"op_names": ["head"], "target_names": ["weight"], "sparse_ratio": 0.5}]
QUANTIZED = [{"op_names": ["head"], "target_names": ["weight"], "quant_dtype": "int4"}]


class Language(nn.Module):
    """An embedding and a head of one shape."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.table = nn.Embedding(8, 4)
        self.head = nn.Linear(4, 8, bias=False)

    def forward(self, tokens):
        return self.head(self.table(tokens))


RECIPES = [
    {"pruning": {"algorithm": "level", "hold": "step", "config_list": PRUNED}},
    {"quantization": {"algorithm": "rtn", "config_list": QUANTIZED}},
    {"quantization": {"algorithm": "lsq", "config_list": QUANTIZED}},
    {"quantization": {"algorithm": "gptq", "config_list": QUANTIZED}},
]


def attached(recipe):
    session = tersely.attach(Language(), recipe)
    session.calibrate([torch.arange(8)])
    session.compress()
    return session


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("call", ["step", "finalize"])
def test_a_late_tie_is_noticed_and_the_other_weight_stays(recipe, call):
    session = attached(recipe)
    table = session.model.table.weight
    before = table.clone()
    session.model.head.weight = table
    with pytest.raises(tersely.SessionError, match=r"head\.weight became .* as table\.weight"):
        getattr(session, call)()
    assert torch.equal(table, before)


@pytest.mark.parametrize("recipe", [RECIPES[0], RECIPES[3]])
def test_values_are_not_given_back_to_another_module_s_parameter(recipe):
    session = attached(recipe)
    table = session.model.table.weight
    own, before = session.model._modules["head"]._parameters["weight"], table.clone()
    session.model.head.weight = table
    with pytest.raises(tersely.SessionError, match=r"detach.. found that head\.weight became"):
        session.detach()
    with pytest.raises(tersely.SessionError, match=r"suspended.. found"), session.suspended():
        pass
    assert torch.equal(table, before)
    session.model.head.weight = own
    assert session.detach().head.weight is own


@pytest.mark.parametrize("recipe", RECIPES[1:3])
def test_a_session_that_has_written_nothing_may_be_detached_from_tied_modules(recipe):
    session = attached(recipe)
    session.model.head.weight = session.model.table.weight
    model = session.detach()
    assert model.head.weight is model.table.weight
