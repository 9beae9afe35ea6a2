"""Sessions of networks of many kinds, shrunk in the middle of training, are used as any other."""

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
    """Sessions that a test has shrunk, by the name of their network."""
    return {}


@pytest.fixture
def small(toy_pruners, network, known):
    """A shrunk session and inputs of its model; a test leaves it as it is."""
    if network.name not in known:
        model, inputs = doubled(network)
        session = pruned(model, network.halves())
        session.shrink(inputs)
        known[network.name] = session, inputs
    return known[network.name]


def train(network, model, inputs, optimizer, *, steps):
    model.train(network.name not in PLAIN)
    for _ in range(steps):
        torch.manual_seed(0)
        optimizer.zero_grad()
        found = [one for one in tree_leaves(model(*inputs)) if one.requires_grad]
        sum(one.square().mean() for one in found).backward()
        optimizer.step()
    model.eval()


def test_training_goes_on_as_it_would_have_on_the_masked_model(toy_pruners, network):
    outputs = []
    for is_shrunk in (False, True):
        model, inputs = doubled(network)
        session = pruned(model, network.halves())
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
        train(network, model, inputs, optimizer, steps=2)
        if is_shrunk:
            session.shrink(inputs, optimizer=optimizer)
        before = model(*inputs)
        train(network, model, inputs, optimizer, steps=2)
        outputs.append([before, model(*inputs)])

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


def test_a_small_model_is_pruned_and_shrunk_once_more(toy_pruners, network):
    model, inputs = doubled(network)
    session = pruned(model, network.halves())
    session.shrink(inputs)
    small = session.finalize()
    before = sum(one.numel() for one in small.parameters())

    again = pruned(small, network.halves_of(small, inputs))
    masked = small(*inputs)
    again.shrink(inputs)

    torch.testing.assert_close(small(*inputs), masked, rtol=1e-8, atol=1e-8)
    assert sum(one.numel() for one in small.parameters()) < before
