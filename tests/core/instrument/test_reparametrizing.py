"""Reparametrizations are refused on a target while a session is attached, and the layer is whole."""

import copy
import io

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune

import tersely

pytestmark = [
    pytest.mark.usefixtures("toy_pruners"),
    pytest.mark.filterwarnings("ignore:.*weight_norm.*is deprecated:FutureWarning"),
]


class Symmetric(nn.Module):
    """A matrix of its upper half."""

    def forward(self, weight):
        return weight.triu() + weight.triu(1).T


class Halved(nn.Module):
    """Twice what it keeps."""

    def forward(self, weight):
        return 2 * weight

    def right_inverse(self, weight):
        return weight / 2


def drop_connect(layer):
    weight = layer.weight
    del layer._parameters["weight"]
    layer.register_parameter("weight_raw", nn.Parameter(weight.data))
    layer.weight = nn.functional.dropout(layer.weight_raw)


def deleted_then_assigned(layer):
    weight = layer.weight
    del layer._parameters["weight"]
    layer.weight = weight * 2


REPARAMETRIZATIONS = pytest.mark.parametrize(
    "put_on",
    [
        nn.utils.weight_norm,
        nn.utils.spectral_norm,
        parametrizations.weight_norm,
        parametrizations.spectral_norm,
        parametrizations.orthogonal,
        lambda layer: parametrize.register_parametrization(layer, "weight", Symmetric()),
        lambda layer: parametrize.register_parametrization(layer, "weight", Halved()),
        lambda layer: parametrize.register_parametrization(layer, "weight", Halved(), unsafe=True),
        lambda layer: prune.l1_unstructured(layer, "weight", 0.5),
        lambda layer: prune.ln_structured(layer, "weight", 0.5, n=2, dim=0),
        lambda layer: prune.global_unstructured(
            [(layer, "weight")], prune.RandomUnstructured, amount=0.5
        ),
        drop_connect,
        deleted_then_assigned,
        lambda layer: delattr(layer, "weight"),
    ],
)


def attached(layer):
    model = nn.Sequential(layer)
    entry = {"op_names": ["0"], "target_names": ["weight"], "sparse_ratio": 0.5}
    return tersely.prune(model, [entry], algorithm="toy")


@REPARAMETRIZATIONS
@pytest.mark.parametrize("is_frozen", [False, True])
def test_a_reparametrization_is_refused_and_the_layer_is_whole(put_on, is_frozen):
    layer = nn.Linear(4, 4).requires_grad_(not is_frozen)
    before = dict(layer.named_parameters())
    session = attached(layer)
    names, cls = list(session.model.state_dict()), type(layer)
    output = session.model(torch.ones(1, 4))
    with pytest.raises(tersely.SessionError, match=r"0\.weight.* tersely\.attach"):
        put_on(layer)
    assert [*layer._parameters.items()] == [*before.items()]
    assert list(session.model.state_dict()) == names
    assert type(layer) is cls
    assert not layer._forward_pre_hooks
    assert torch.equal(session.model(torch.ones(1, 4)), output)
    session.step()
    assert int((session.finalize()[0].weight == 0).sum()) == 8


@pytest.mark.parametrize(
    "layer", [nn.Conv2d(2, 2, 2), nn.ConvTranspose1d(2, 2, 2), nn.Linear(2, 2)]
)
def test_weight_norm_goes_on_after_the_session_is_detached(layer):
    session = attached(layer)
    with pytest.raises(tersely.SessionError, match=r"0\.weight .* after session\.detach"):
        nn.utils.weight_norm(layer)
    session.detach()
    assert [*dict(nn.utils.weight_norm(layer).named_parameters())] == [
        "bias",
        "weight_g",
        "weight_v",
    ]


def test_another_parameter_of_the_layer_may_be_reparametrized():
    layer = nn.Linear(4, 4)
    session = attached(layer)
    prune.l1_unstructured(layer, "bias", 0.5)
    assert session.model(torch.ones(1, 4)).shape == (1, 4)
    session.step()


def test_copies_and_files_hold_a_parameter_once():
    session = attached(nn.Linear(4, 4))
    session.model(torch.ones(1, 4))
    copied = copy.deepcopy(session.model)
    assert copied[0]._parameters["weight"] is not session.model[0]._parameters["weight"]
    file = io.BytesIO()
    torch.save(session.model, file)
    file.seek(0)
    loaded = torch.load(file, weights_only=False)
    assert torch.equal(loaded(torch.ones(1, 4)), session.model(torch.ones(1, 4)))


def test_a_parameter_that_was_replaced_is_not_kept():
    layer = nn.Linear(4, 4)
    session = attached(layer)
    session.model(torch.ones(1, 4))
    layer.weight = nn.Parameter(torch.ones(4, 4))
    with pytest.raises(tersely.SessionError, match="cannot be deleted"):
        nn.utils.weight_norm(layer)
    assert torch.equal(layer._parameters["weight"], torch.ones(4, 4))
