"""Models that change while a session is attached, and modules that no session can serve."""

import copy
import gc

import pytest
import torch
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef

import tersely

pytestmark = pytest.mark.usefixtures("toy_pruners")

CONFIG = [{"op_types": ["Linear"], "target_names": ["weight"], "sparse_ratio": 0.5}]


@pytest.fixture
def session():
    model = nn.Sequential(nn.Sequential(nn.Linear(4, 4)), nn.Linear(4, 4))
    return tersely.prune(model, CONFIG, algorithm="toy")


@pytest.mark.parametrize("call", ["step", "report", "finalize", "compress"])
@pytest.mark.parametrize("name", ["0.0", "1"])
def test_a_replaced_module_is_noticed_by_name(session, call, name):
    session.model.set_submodule(name, nn.Linear(4, 4))
    with pytest.raises(tersely.SessionError, match=f"{call}.. found that the module '{name}' was"):
        getattr(session, call)()


def test_a_module_whose_parent_was_replaced_is_noticed_when_the_session_is_saved(session, tmp_path):
    session.model[0] = nn.Sequential(nn.Linear(4, 4))
    with pytest.raises(tersely.SessionError, match=r"module '0\.0' was replaced or removed"):
        session.save(tmp_path / "session")


def test_a_module_that_was_put_back_goes_on(session):
    before = session.model[1]
    session.model[1] = nn.Linear(4, 4)
    session.model[1] = before
    session.step()
    assert session.steps == 1


def test_a_module_that_was_wrapped_goes_on(session):
    session.model[1] = nn.Sequential(session.model[1], nn.ReLU())
    session.step()
    assert int((session.finalize()[1][0].weight == 0).sum()) == 8


def test_modules_that_changed_places_are_noticed(session):
    model = session.model
    model[0][0], model[1] = model[1], model[0][0]
    with pytest.raises(tersely.SessionError, match=r"step.. found another module .* at '0\.0'"):
        session.step()


class OwnClass(nn.Linear):
    """Asks for the class above its own in the way that no subclass survives."""

    def forward(self, x):
        return super(self.__class__, self).forward(x)


class OwnType(nn.Linear):
    """Says the same with ``type``."""

    def forward(self, x):
        return super(type(self), self).forward(x)


class Fine(nn.Linear):
    """Names its class only where that is harmless."""

    def __init__(self, *sizes):
        super(self.__class__, self).__init__(*sizes)

    def forward(self, x):
        assert self.__class__.__name__ == "Fine"
        return super().forward(x)


@pytest.mark.parametrize("cls", [OwnClass, OwnType])
def test_super_of_its_own_class_is_refused_when_attached(cls):
    entry = {"op_names": ["0"], "target_names": ["weight"], "sparse_ratio": 0.5}
    model = nn.Sequential(cls(4, 4))
    with pytest.raises(tersely.AttachError, match=f"write super.. without .* in {cls.__name__}"):
        tersely.prune(model, [entry], algorithm="toy")
    assert type(model[0]) is cls


def test_super_and_the_class_name_in_one_method_are_fine():
    entry = {"op_names": ["0"], "target_names": ["weight"], "sparse_ratio": 0.5}
    model = nn.Sequential(Fine(4, 4))
    tersely.prune(model, [entry], algorithm="toy")
    assert model(torch.ones(1, 4)).shape == (1, 4)


def test_an_expanded_parameter_is_an_error_that_says_what_to_do():
    layer = nn.Linear(4, 4)
    layer.weight = nn.Parameter(torch.ones(1, 4).expand(4, 4))
    with pytest.raises(tersely.PlanError, match=r"0\.weight: it is expanded, .* with \.clone\(\)"):
        tersely.prune(nn.Sequential(layer), CONFIG, algorithm="toy")


def test_a_parameter_that_is_swapped_stays_the_target(session):
    layer = session.model[1]
    parameter = dict(session.model.named_parameters())["1.weight"]
    mask = session.masks()["1"]["weight"]
    torch.utils.swap_tensors(parameter, nn.Parameter(torch.full((4, 4), 3.0)))
    assert torch.equal(layer.weight, 3.0 * mask)
    session.step()
    assert session.finalize()[1].weight is parameter
    assert torch.equal(parameter, 3.0 * mask)


@pytest.fixture
def _swapping():
    torch.__future__.set_swap_module_params_on_conversion(True)
    yield
    torch.__future__.set_swap_module_params_on_conversion(False)


@pytest.mark.usefixtures("_swapping")
def test_a_model_whose_parameters_are_swapped_on_conversion_moves_and_loads(session):
    model = session.model
    mask = session.masks()["1"]["weight"]
    state = {key: torch.full_like(value, 2.0) for key, value in model.state_dict().items()}
    model.double()
    model.load_state_dict({key: state[key] for key in ("1.weight", "1.bias")}, strict=False)
    assert model[1].weight.dtype == torch.float64
    assert torch.equal(model[1].weight, 2.0 * mask.double())
    session.step()
    assert torch.equal(session.finalize()[1].weight, 2.0 * mask.double())


def test_a_copy_of_a_session_frees_no_memory_of_the_original(session, monkeypatch):
    freed = []
    monkeypatch.setattr(StorageWeakRef, "__del__", lambda one: freed.append(one.cdata))
    other = copy.deepcopy(session)
    other.step()
    del other
    gc.collect()
    known = {parameter.untyped_storage()._cdata for parameter in session.model.parameters()}
    assert not known.intersection(freed)
    session.step()


class FullyShardedDataParallel(nn.Module):
    """Has the name of PyTorch's and wraps as it does."""

    def __init__(self, inner):
        super().__init__()
        self._fsdp_wrapped_module = inner


@pytest.mark.parametrize("is_root", [True, False])
def test_parameters_that_were_made_one_flat_tensor_are_refused_by_name(is_root):
    model = FullyShardedDataParallel(nn.Linear(4, 4))
    model = model if is_root else nn.Sequential(model)
    found = "the model" if is_root else "module '0'"
    with pytest.raises(
        tersely.PlanError, match=f"^{found} is wrapped in FullyShardedDataParallel, .*fully_shard"
    ):
        tersely.prune(model, CONFIG, algorithm="toy")
