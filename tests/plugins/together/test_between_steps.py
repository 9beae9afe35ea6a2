"""What loops do between two steps, and sessions do not notice: training ends bit for bit the same."""

import copy
import functools
import pickle

import pytest
import torch
from torch import nn

import tersely

pytestmark = pytest.mark.filterwarnings("ignore::tersely.session.finalizing.baking.FinalizeWarning")

DATA = [torch.randn(8, 6, generator=torch.Generator().manual_seed(step)) for step in range(6)]
SCHEDULE = {"name": "agp", "begin": 1, "every": 1, "times": 4}
PRUNED = [{"op_types": ["Linear"], "target_names": ["weight"], "sparse_ratio": 0.5}]
QUANTIZED = [{"op_types": ["Linear"], "target_names": ["_input_", "weight"]}]
RECIPES = {
    "held": {
        "pruning": {
            "algorithm": "level",
            "hold": "step",
            "schedule": SCHEDULE,
            "config_list": PRUNED,
        }
    },
    "taylor": {"pruning": {"algorithm": "taylor", "schedule": SCHEDULE, "config_list": PRUNED}},
    "slim": {"pruning": {"algorithm": "slim", "schedule": SCHEDULE, "config_list": PRUNED}},
    "qat": {"quantization": {"algorithm": "qat", "config_list": QUANTIZED}},
    "lsq": {"quantization": {"algorithm": "lsq", "config_list": QUANTIZED}},
}


def built():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 4))


def train_a_copy(model, again):
    twin = again(model)
    twin(DATA[0]).square().sum().backward()
    torch.optim.SGD(twin.parameters(), lr=0.5).step()


def copies(model, session):
    train_a_copy(model, copy.deepcopy)
    train_a_copy(model, lambda one: pickle.loads(pickle.dumps(one)))


def evaluates(model, session):
    model.eval()
    with torch.no_grad():
        model(DATA[0] * 7)
    with torch.inference_mode():
        model(DATA[0] * 9)
    model.train()


def is_dense_for_a_while(model, session):
    with session.suspended():
        evaluates(model, session)


def moves(model, session):
    model.double()
    model.float()


def freezes(model, session):
    model.requires_grad_(False)
    model.requires_grad_(True)


def loads_what_it_saved(model, session):
    model.load_state_dict({key: value.clone() for key, value in model.state_dict().items()})


def assigns_buffers(model, session):
    state = {key: value.clone() for key, value in model.state_dict().items()}
    model.load_state_dict({**state, **dict(model.named_parameters())}, assign=True)


def looks(model, session):
    session.report()
    session.learned()
    session.qparams()


def trained(recipe, between):
    torch.manual_seed(1)
    model = built()
    session = tersely.attach(model, recipe)
    method = next(iter(recipe))
    if method == "quantization":
        session.calibrate(DATA[:1])
    if recipe[method]["algorithm"] in ("level", "lsq"):
        session.compress()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for batch in DATA:
        optimizer.zero_grad()
        session.total_loss(model(batch).square().mean()).backward()
        optimizer.step()
        session.step()
        between(model, session)
    tensors, _ = session.state()
    return {**tensors, **session.finalize().state_dict()}


@functools.cache
def undisturbed(name):
    return trained(RECIPES[name], lambda *_: None)


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize(
    "between",
    [
        copies,
        evaluates,
        is_dense_for_a_while,
        moves,
        freezes,
        loads_what_it_saved,
        assigns_buffers,
        looks,
    ],
)
def test_it_changes_nothing(name, between):
    found, expected = trained(RECIPES[name], between), undisturbed(name)
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[key], value) for key, value in expected.items())
