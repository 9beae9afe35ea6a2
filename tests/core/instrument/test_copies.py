"""Invariant 3: deep copies, pickles and ``torch.save`` of an attached model."""

import copy
import io
import pickle

import pytest
import torch
from torch import nn

import tersely


def saved_and_loaded(model):
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


WAYS = pytest.mark.parametrize(
    "again",
    [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model)), saved_and_loaded],
    ids=["deepcopy", "pickle", "torch_save"],
)


@WAYS
def test_a_copy_computes_the_same(net, x, masked, again):
    assert torch.equal(again(net)(x), net(x))


@WAYS
def test_a_copy_made_after_a_training_forward_computes_the_same(net, x, masked, again):
    net.train()
    output = net(x)
    output.sum().backward()
    assert torch.equal(again(net)(x), output)


@WAYS
def test_a_copy_before_compress_computes_the_same(net, x, again):
    config_list = [{"op_types": ["Linear"], "sparse_ratio": 0.5}]
    tersely.attach(net, {"pruning": {"algorithm": "toy", "config_list": config_list}})
    assert torch.equal(again(net)(x), net(x))


@WAYS
def test_a_copy_shares_nothing_with_its_original(net, x, masked, again):
    other = again(net)
    expected = net(x)
    with torch.no_grad():
        for tensor in (*other.parameters(), *other.buffers()):
            tensor.zero_()
    assert torch.equal(net(x), expected)


@WAYS
def test_a_copy_has_the_class_of_its_original(net, masked, again):
    other = again(net)
    assert type(other.first) is type(net.first)
    assert isinstance(other.first, nn.Linear)


@WAYS
def test_a_copied_recurrent_layer_computes_the_same(prune, again):
    layer = nn.LSTM(3, 4, bidirectional=True)
    prune(layer, {"op_types": ["LSTM"], "sparse_ratio": 0.5})
    sequence = torch.randn(5, 2, 3)
    layer(sequence)[0].sum().backward()
    assert torch.equal(again(layer)(sequence)[0], layer(sequence)[0])


def test_a_shallow_copy_computes_the_same(net, x, masked):
    assert torch.equal(copy.copy(net.first)(x), net.first(x))


def test_a_class_that_needs_arguments_to_be_made_can_be_copied(x, prune):
    class Named(nn.Linear):
        def __new__(cls, name):
            module = super().__new__(cls)
            module.__dict__["name"] = name
            return module

        def __init__(self, name):
            super().__init__(6, 2)

        def __getnewargs__(self):
            return (self.name,)

    model = nn.Sequential(Named("n"))
    prune(model, {"op_names": ["0"], "target_names": ["weight"]})
    assert torch.equal(copy.deepcopy(model)(x), model(x))


def test_a_class_with_its_own_way_to_copy_copies_as_it_says(x, prune):
    class Fresh(nn.Linear):
        def __deepcopy__(self, memo):
            return type(self)(self.in_features, self.out_features)

    model = nn.Sequential(Fresh(6, 2))
    prune(model, {"op_names": ["0"], "target_names": ["weight"]})
    assert type(copy.deepcopy(model)[0]) is Fresh


class Emptied(nn.Linear):
    """Copies as `copy.deepcopy` does, and needs arguments to be made."""

    def __deepcopy__(self, memo):
        replica = memo[id(self)] = type(self).__new__(type(self))
        replica.__dict__ = copy.deepcopy(self.__dict__, memo)
        return replica


class Ready(Emptied):
    """The same, made without arguments."""

    def __init__(self):
        super().__init__(6, 2)


class Shallow(nn.Linear):
    def __copy__(self):
        replica = type(self).__new__(type(self))
        replica.__dict__.update(self.__dict__)
        return replica


@pytest.mark.parametrize("layer", [lambda: Emptied(6, 2), Ready])
def test_a_class_that_fills_an_empty_copy_is_copied_masked(x, prune, layer):
    model = nn.Sequential(layer())
    prune(model, {"op_names": ["0"], "target_names": ["weight"]})
    twin = copy.deepcopy(model)
    assert torch.equal(twin(x), model(x))
    assert type(twin[0]) is type(model[0])
    assert torch.equal(twin[0].weight == 0, model[0].weight == 0)


def test_a_class_that_fills_a_shallow_copy_is_copied_masked(x, prune):
    model = nn.Sequential(Shallow(6, 2))
    prune(model, {"op_names": ["0"], "target_names": ["weight"]})
    assert torch.equal(copy.copy(model[0])(x), model(x))


def test_a_parametrized_layer_is_copied_with_the_masks_of_its_other_targets(x, prune):
    model = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(6, 2)))
    bias = {"bias": {"sparse_ratio": 0.5, "align": None}}
    prune(model, {"op_names": ["0"], "target_names": ["bias"], "target_settings": bias})
    twin = copy.deepcopy(model)
    assert torch.equal(twin(x), model(x))
    assert int((twin[0].bias == 0).sum()) == 1


def test_a_class_with_its_own_pickling_is_refused_by_name(prune):
    class Peculiar(nn.Linear):
        def __reduce_ex__(self, protocol):
            return Peculiar, (6, 2)

    model = nn.Sequential(Peculiar(6, 2))
    prune(model, {"op_names": ["0"], "target_names": ["weight"]})
    with pytest.raises(tersely.AttachError) as caught:
        copy.deepcopy(model)
    assert str(caught.value) == (
        "Peculiar defines its own pickling, which tersely cannot extend; copy or save it after "
        "session.finalize() or session.detach()"
    )
