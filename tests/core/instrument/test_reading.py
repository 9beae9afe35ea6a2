"""Parameters of experts are masked once in a call, however often its forward reads them."""

import copy
import pickle
import threading

import pytest
import torch
from torch import nn
from torch.nn.functional import linear
from torch.utils.checkpoint import checkpoint

import tersely
from tersely.instrument.masks.mask_transforms import ParameterMask
from tersely.instrument.names import READ

pytestmark = pytest.mark.usefixtures("toy_pruners")
X = torch.linspace(-1, 1, 24).reshape(8, 3)


class LoopExperts(nn.Module):
    def __init__(self, wrap=None):
        super().__init__()
        torch.manual_seed(0)
        self.num_experts, self.wrap = 4, wrap
        self.weight_in = nn.Parameter(torch.randn(4, 5, 3))
        self.weight_out = nn.Parameter(torch.randn(4, 3, 5))

    def one(self, expert, x):
        return linear(linear(x, self.weight_in[expert]).relu(), self.weight_out[expert])

    def forward(self, x):
        parts = x.chunk(4)
        if self.wrap is None:
            return torch.cat([self.one(expert, part) for expert, part in enumerate(parts)])
        return torch.cat([self.wrap(self.one, expert, part) for expert, part in enumerate(parts)])


def by_checkpoint(function, expert, x):
    return checkpoint(function, expert, x, use_reentrant=False)


def masked(wrap=None):
    model = LoopExperts(wrap)
    plain = copy.deepcopy(model)
    entry = {"op_types": ["LoopExperts"], "sparse_ratio": 0.5}
    session = tersely.prune(nn.Sequential(model), [entry], algorithm="toy")
    for name, mask in session.masks()["0"].items():
        getattr(plain, name).data.mul_(mask)
    return model, plain, session


@pytest.fixture
def reads(monkeypatch):
    """The buffers of masks that were applied, one entry for each time."""
    found, original = [], ParameterMask.settled

    def settled(self, module, value):
        found.append(self.buffer)
        return original(self, module, value)

    monkeypatch.setattr(ParameterMask, "settled", settled)
    return found


def test_each_parameter_is_masked_once_in_a_call(reads):
    model, plain, _ = masked()
    reads.clear()
    assert torch.equal(model(X), plain(X))
    assert sorted(reads) == ["_tersely_weight_in_mask", "_tersely_weight_out_mask"]


def test_gradients_are_those_of_masked_weights():
    model, plain, session = masked()
    for one in (model, plain):
        one(X).square().sum().backward()
    kept = session.masks()["0"]["weight_in"]
    found = model._parameters["weight_in"].grad
    torch.testing.assert_close(found, plain.weight_in.grad * kept)


def test_a_write_during_the_call_is_seen():
    model, plain, _ = masked()

    def doubling(function, expert, x):
        with torch.no_grad():
            model.weight_in.mul_(2) if function == model.one else plain.weight_in.mul_(2)
        return function(expert, x)

    model.wrap = plain.wrap = doubling
    with torch.no_grad():
        assert torch.equal(model(X), plain(X))


def test_a_part_that_is_recomputed_reads_for_itself():
    model, plain, session = masked(by_checkpoint)
    for one in (model, plain):
        one(X.clone().requires_grad_()).square().sum().backward()
    kept = session.masks()["0"]["weight_out"]
    found = model._parameters["weight_out"].grad
    torch.testing.assert_close(found, plain.weight_out.grad * kept)


def test_a_call_that_is_recomputed_as_a_whole_reads_once_each_time(reads):
    model, _, _ = masked()
    reads.clear()
    checkpoint(model, X.clone().requires_grad_(), use_reentrant=False).sum().backward()
    assert len(reads) == 4


def test_nothing_is_remembered_after_a_call_even_one_that_fails():
    model, _, _ = masked()
    model(X)
    with pytest.raises(RuntimeError):
        model(X[:, :2])
    assert READ not in model.__dict__
    assert torch.equal(pickle.loads(pickle.dumps(model))(X), model(X))


def test_transforms_of_torch_func_go_through_such_a_call():
    model, plain, session = masked()

    def loss(weight, one):
        return torch.func.functional_call(one, {"weight_in": weight}, (X,)).square().sum()

    weight = model._parameters["weight_in"].detach()
    found = torch.func.grad(loss)(weight, model)
    kept = session.masks()["0"]["weight_in"]
    torch.testing.assert_close(found, torch.func.grad(loss)(weight * kept, plain) * kept)


def test_a_compiled_call_computes_the_same():
    model, plain, _ = masked()
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(X), plain(X))


def test_calls_of_two_threads_that_end_in_turn_leave_nothing_behind():
    inside, go_on = threading.Event(), threading.Event()

    def second():
        with torch.no_grad():
            model(X)

    other = threading.Thread(target=second)

    def in_turn(function, expert, x):
        if expert == 0 and threading.current_thread() is other:
            inside.set()
            assert go_on.wait(30)
        elif expert == 0:
            other.start()
            assert inside.wait(30)
        return function(expert, x)

    model, plain, _ = masked(in_turn)
    plain.wrap = None
    torch.testing.assert_close(model(X), plain(X), rtol=0, atol=0)
    go_on.set()
    other.join()

    assert READ not in model.__dict__


def test_a_forward_that_runs_backward_itself_reads_again_afterwards():
    class TwiceExperts(LoopExperts):
        def forward(self, x):
            super().forward(x).square().sum().backward()
            return super().forward(x)

    one, other = nn.Sequential(TwiceExperts()), TwiceExperts()
    entry = {"op_types": ["TwiceExperts"], "sparse_ratio": 0.5}
    session = tersely.prune(one, [entry], algorithm="toy")
    for name, mask in session.masks()["0"].items():
        getattr(other, name).data.mul_(mask)

    for each in (one, other):
        each(X).sum().backward()

    kept = session.masks()["0"]["weight_in"]
    found = one[0]._parameters["weight_in"].grad
    torch.testing.assert_close(found, other.weight_in.grad * kept)
