"""A short way to ask which modules are tied, and in how many runs they are pruned."""

import warnings

import pytest
import torch

import tersely
from tersely.planning.resolve import PlanWarning

LAYERS = ("Conv1d", "Conv2d", "ConvTranspose2d", "Linear", "Embedding")


def present(model, types):
    names = {type(module).__name__ for module in model.modules()}
    return [name for name in types if name in names]


@pytest.fixture
def tied():
    """Names of modules that share an id, in groups, and runs of all modules that have them."""

    def tied(model, inputs, types=LAYERS):
        given = [{"op_types": present(model, types), "sparse_ratio": 0.5}]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PlanWarning)
            found = tersely.auto_dependency_groups(model, given, inputs)
        groups, runs = {}, {}
        for entry in found:
            if "dependency_group_id" in entry:
                groups.setdefault(entry["dependency_group_id"], []).extend(entry["op_names"])
            if "internal_metric_block" in entry:
                runs |= dict.fromkeys(entry["op_names"], entry["internal_metric_block"])
        return sorted(groups.values()), runs

    return tied


@pytest.fixture
def keys_of():
    """What each module's entry says of its channels."""

    def keys_of(model, inputs, types=LAYERS):
        given = [{"op_types": present(model, types), "sparse_ratio": 0.5}]
        said = ("dependency_group_id", "internal_metric_block", "dependency_parts", "granularity")
        found = {}
        for entry in tersely.auto_dependency_groups(model, given, inputs):
            for name in entry.get("op_names", ()):
                found[name] = {key: entry[key] for key in said if key in entry}
        return found

    return keys_of


@pytest.fixture
def refusal():
    """The whole message with which a model is refused."""

    def refusal(model, inputs, *, types=LAYERS):
        given = [{"op_types": present(model, types), "sparse_ratio": 0.5}]
        with pytest.raises(tersely.PlanError) as caught:
            tersely.auto_dependency_groups(model, given, inputs)
        return str(caught.value)

    return refusal


@pytest.fixture
def image():
    return torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def tokens():
    return torch.randn(2, 5, 6, generator=torch.Generator().manual_seed(0))
