"""Sessions of networks of many kinds, shrunk in the middle of training, are used as any other."""

import copy

import pytest
import torch
from torch.utils._pytree import tree_leaves

import tersely

PLAIN = {"TrainingOnly", "AutoEncoder"}
"""Networks that draw numbers for every channel in training, and so others on a small model."""


def doubled(network):
    """A network in double precision, and its inputs."""
    model, inputs = network.build()
    return model.double(), tuple(x.double() if x.is_floating_point() else x for x in inputs)


def pruned(model, masks):
    """A session with these masks."""
    kept = {}
    for name, mask in masks.items():
        module, _, target = name.rpartition(".")
        kept.setdefault(module, {})[target] = mask
    config = [
        {"op_names": [module], "target_names": list(own), "sparse_ratio": 0.5}
        for module, own in kept.items()
    ]
    session = tersely.attach(model, {"pruning": {"algorithm": "toy", "config_list": config}})
    free = {(one.module, one.target) for one in session.plan.targets if one.setting.align is None}
    session.set_masks(
        {
            module: {name: mask for name, mask in own.items() if (module, name) in free}
            for module, own in kept.items()
        }
    )
    return session


@pytest.fixture(scope="session")
def known():
    """Sessions in the middle of training, each shrunk once, by the name of their network."""
    return {}


@pytest.fixture
def shrunk(toy_pruners, network, known):
    """A session shrunk in the middle of training, inputs of its model, and the optimizer."""
    if network.name not in known:
        session, inputs, optimizer = trained(network)
        session.shrink(inputs, optimizer=optimizer)
        known[network.name] = session, inputs, optimizer
    return copy.deepcopy(known[network.name])


@pytest.fixture
def small(shrunk):
    """A shrunk session and inputs of its model."""
    return shrunk[:2]


def trained(network):
    """A masked session after two steps, inputs of its model, and the optimizer."""
    model, inputs = doubled(network)
    session = pruned(model, network.halves())
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    train(network, model, inputs, optimizer, steps=2)
    return session, inputs, optimizer


def train(network, model, inputs, optimizer, *, steps):
    model.train(network.name not in PLAIN)
    for _ in range(steps):
        torch.manual_seed(0)
        optimizer.zero_grad()
        found = [one for one in tree_leaves(model(*inputs)) if one.requires_grad]
        sum(one.square().mean() for one in found).backward()
        optimizer.step()
    model.eval()


def test_training_goes_on_as_it_would_have_on_the_masked_model(network, shrunk):
    outputs = []
    for session, inputs, optimizer in (trained(network), shrunk):
        before = session.model(*inputs)
        train(network, session.model, inputs, optimizer, steps=2)
        outputs.append([before, session.model(*inputs)])

    torch.testing.assert_close(outputs[1], outputs[0], rtol=1e-8, atol=1e-8)


def test_a_saved_session_gives_its_small_model_back(small, network, tmp_path):
    session, inputs = small
    model = session.model
    session.save(tmp_path)

    loaded = tersely.load_shrunk(doubled(network)[0], tmp_path)
    resumed = tersely.load_session(doubled(network)[0], tmp_path)

    assert list(loaded.state_dict()) == list(network.build()[0].state_dict())
    torch.testing.assert_close(loaded(*inputs), model(*inputs), rtol=1e-12, atol=1e-12)
    assert list(resumed.model.state_dict()) == list(model.state_dict())
    resumed.model.load_state_dict(model.state_dict())
    torch.testing.assert_close(resumed.model(*inputs), model(*inputs), rtol=0, atol=0)


def test_a_program_of_a_small_model_computes_the_same(small):
    session, inputs = small

    program = session.export_program(inputs)

    found, expected = program.module()(*inputs), session.model(*inputs)
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-8)


def test_a_small_model_is_pruned_and_shrunk_once_more(small, network):
    session, inputs = small
    model = session.finalize()
    before = sum(one.numel() for one in model.parameters())

    again = pruned(model, network.halves_of(model, inputs))
    masked = model(*inputs)
    again.shrink(inputs)

    torch.testing.assert_close(model(*inputs), masked, rtol=1e-8, atol=1e-8)
    assert sum(one.numel() for one in model.parameters()) < before
