"""A journal puts back what was noted, and the very objects that were there."""

import contextlib

import pytest
import torch
from torch import nn

import tersely
from tersely.engine.state.journal import Journal
from tersely.instrument.modules.classes import instruments_of
from tersely.instrument.names import known_flag, state_buffer

TOY = {
    "pruning": {
        "algorithm": "toy",
        "config_list": [{"op_types": ["Linear"], "sparse_ratio": 0.5}],
    }
}


class Owner:
    """Something with attributes."""

    def __init__(self):
        self.found = {"a": 1}
        self.count = 1


class GoneWrongError(Exception):
    """What goes wrong in a block."""


@contextlib.contextmanager
def failing():
    """A block with a journal that fails at its end, and whose error goes on."""
    with pytest.raises(GoneWrongError), Journal() as journal:  # noqa: PT012  # the block is the caller's
        yield journal
        raise GoneWrongError


def test_a_block_that_succeeds_changes_what_it_changes():
    owner = Owner()
    with Journal() as journal:
        journal.note_attributes(owner, "count")
        owner.count = 2
    assert owner.count == 2


def test_attributes_come_back_with_what_mappings_held():
    owner = Owner()
    with failing() as journal:
        journal.note_attributes(owner, "found", "count")
        owner.found["b"] = 2
        owner.count = 2
    assert owner.found == {"a": 1}
    assert owner.count == 1


def test_a_tensor_comes_back_as_the_same_object_with_its_values():
    module = nn.BatchNorm1d(2)
    buffer = module.running_mean
    with failing() as journal:
        journal.note_buffer(module, "running_mean")
        buffer.fill_(3)
        module._buffers["running_mean"] = torch.ones(2)
    assert module.running_mean is buffer
    assert buffer.tolist() == [0, 0]


def test_of_two_notes_the_earlier_one_counts():
    module = nn.BatchNorm1d(2)
    with failing() as journal:
        journal.note_buffer(module, "running_mean")
        module.running_mean.fill_(3)
        journal.note_buffer(module, "running_mean")
        module.running_mean.fill_(4)
    assert module.running_mean.tolist() == [0, 0]


def test_a_buffer_that_was_not_there_is_taken_out():
    module = nn.Linear(1, 1)
    with failing() as journal:
        journal.note_buffer(module, "other")
        module._buffers["other"] = torch.ones(1)
    assert "other" not in module._buffers


def test_ones_and_zeros_come_back_as_what_they_were():
    module = nn.BatchNorm1d(3)
    module.running_mean.copy_(torch.tensor([1.0, 0.0, 1.0]))
    with failing() as journal:
        journal.note_buffer(module, "running_mean", is_binary=True)
        module.running_mean.zero_()
    assert module.running_mean.tolist() == [1, 0, 1]


def test_masks_that_are_noted_together_come_back_each_in_its_own_buffer():
    modules = [nn.BatchNorm1d(3) for _ in range(3)]
    before = [[1, 0, 1], [0, 0, 0], [1, 1, 0]]
    for module, values in zip(modules, before, strict=True):
        module.running_mean.copy_(torch.tensor(values))
    buffers = [module.running_mean for module in modules]
    with failing() as journal:
        journal.note_masks((module, "running_mean") for module in modules)
        for module in modules:
            module.running_mean.fill_(7)
        modules[1]._buffers["running_mean"] = torch.ones(1)
    assert [module.running_mean.tolist() for module in modules] == before
    assert all(one.running_mean is two for one, two in zip(modules, buffers, strict=True))


def test_an_optimizer_forgets_a_step_and_has_its_gradient_again():
    leaf = torch.tensor([1.0], requires_grad=True)
    optimizer = torch.optim.SGD([leaf], lr=1.0, momentum=0.5)
    leaf.grad = torch.tensor([2.0])
    with failing() as journal:
        journal.note_optimizer(optimizer)
        optimizer.step()
        optimizer.zero_grad()
    assert leaf.tolist() == [1]
    assert leaf.grad.tolist() == [2]
    optimizer.step()
    # One step of 2 without a memory of the one before, and not 2 + 0.5 * 2.
    assert leaf.tolist() == [-1]


@pytest.mark.usefixtures("toy_pruners")
def test_masks_and_steps_of_a_module_come_back():
    model = nn.Sequential(nn.Linear(2, 2))
    session = tersely.attach(model, TOY)
    before = instruments_of(model[0])
    with failing() as journal:
        journal.note_modules([model[0]])
        session.compress()
    assert instruments_of(model[0]) is before
    assert session.masks() == {}


@pytest.mark.usefixtures("toy_pruners")
def test_buffers_and_flags_of_several_modules_come_back_as_they_were():
    model = nn.Sequential(*(nn.Linear(2, 2) for _ in range(3)))
    tersely.attach(model, TOY)
    scale, flag = state_buffer("weight", "scale"), known_flag("weight")
    # Two alike, which are noted together, and one that no other is like.
    buffers = [torch.tensor([1.0]), torch.tensor([2.0], requires_grad=True), torch.ones(2, 3)]
    for layer, buffer in zip(model, buffers, strict=True):
        layer._buffers[scale] = buffer
    model[0].__dict__[flag] = True
    with failing() as journal:
        journal.note_modules(model)
        for layer in model:
            layer._buffers[scale].data.fill_(7)
            layer._buffers[scale] = torch.zeros(5)
            layer._buffers[state_buffer("weight", "low")] = torch.zeros(1)
            layer.__dict__[flag] = True
        del model[0].__dict__[flag]
    assert all(model[at]._buffers[scale] is buffer for at, buffer in enumerate(buffers))
    assert [one.tolist() for one in buffers] == [[1], [2], [[1, 1, 1], [1, 1, 1]]]
    assert [layer.__dict__.get(flag) for layer in model] == [True, None, None]
    assert not any(state_buffer("weight", "low") in layer._buffers for layer in model)
