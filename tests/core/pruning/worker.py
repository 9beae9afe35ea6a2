"""One of two gloo processes: what pruners see of a model that both train."""

import sys
from types import ModuleType

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel
from two_processes import WORLD, main, scenario

import tersely
from tersely.contracts import (
    Learns,
    ObservesCurvature,
    ObservesDenseGradients,
    Optimizes,
    ScoresModel,
)

MASK = torch.tensor([[True, False, True], [False, True, False]])


class Dense(ObservesDenseGradients):
    def observe_gradient(
        self, gradient: Tensor, target: tersely.PruningTarget
    ) -> dict[str, Tensor]:
        return {"gradient": gradient.clone()}

    def importance(self, target: tersely.PruningTarget) -> Tensor:
        return target.observed["gradient"].abs()


class Curved(ObservesCurvature):
    def observe_curvature(self, curvature, targets):
        ones = [torch.ones_like(one) for one in curvature.parameters]
        return [{"sums": one} for one in curvature.times(ones)]

    def importance(self, target: tersely.PruningTarget) -> Tensor:
        return target.observed["sums"]


class Flow(ScoresModel):
    def score_model(self, model, targets):
        parameters = [model.parameter(target) for target in targets]
        found = torch.autograd.grad(model.outputs(model.batches[0]).sum(), parameters)
        return [one.abs() for one in found]


class Gated(Learns, Optimizes):
    """Learns a factor by plain gradient descent, which tells a mean of gradients from a sum."""

    def start(self, target):
        return {"gate": torch.ones(())}

    def masked(self, value, mask, learned):
        return value * learned["gate"]

    def optimizer(self, tensors):
        return torch.optim.SGD(tensors, lr=1.0)

    def importance(self, target):
        return target.tensor.abs()


class Face:
    """Makes the pruners known in this process."""

    @tersely.hookimpl
    def tersely_pruners(self) -> list[tersely.PrunerInfo]:
        return [
            tersely.PrunerInfo(name=name, implementation=f"pruners_of_worker:{name.title()}")
            for name in ("dense", "curved", "flow", "gated")
        ]


def build() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 2, bias=False), nn.Tanh())


def batch(rank: int) -> Tensor:
    return torch.randn(4, 3, generator=torch.Generator().manual_seed(rank))


def loss_of(outputs: Tensor) -> Tensor:
    return outputs.square().mean()


def attached(model: nn.Module, algorithm: str) -> tersely.Session:
    entry = {"op_types": ["Linear"], "target_names": ["weight"], "sparse_ratio": 0.5}
    recipe = {"pruning": {"algorithm": algorithm, "config_list": [entry]}}
    return tersely.attach(model, recipe)


def mean_gradient() -> Tensor:
    """The gradient by the masked weight, over both processes' batches."""
    weight = (build()[0].weight.detach() * MASK).requires_grad_()
    losses = [loss_of(torch.tanh(batch(rank) @ weight.t())) for rank in range(WORLD)]
    (gradient,) = torch.autograd.grad(sum(losses) / WORLD, weight)
    return gradient


def seen(session: tersely.Session) -> Tensor:
    """What a process has observed."""
    (key,) = (name for name in session.state()[0] if name.startswith("observed:"))
    return session.state()[0][key]


@scenario
def dense_gradients_are_averaged_as_ddp_does(rank: int) -> None:
    model = build()
    session = attached(model, "dense")
    session.set_masks({"0": {"weight": MASK}})
    parallel = DistributedDataParallel(model)
    loss_of(parallel(batch(rank))).backward()
    session.step()
    torch.testing.assert_close(seen(session), mean_gradient())


@scenario
def gradients_of_what_is_learned_are_averaged(rank: int) -> None:
    model = nn.Sequential(nn.Linear(1, 1, bias=False))
    nn.init.ones_(model[0].weight)
    session = attached(model, "gated")
    # The derivative by the gate is 1 in one process and 2 in the other.
    session.total_loss(model(torch.tensor([[rank + 1.0]])).sum()).backward()
    session.step()
    (gate,) = session.learned().values()
    assert gate.item() == 1 - 1.5


@scenario
def dense_gradients_of_a_sharded_weight_are_whole(rank: int) -> None:
    model = build()
    fully_shard(model, mesh=init_device_mesh("cpu", (WORLD,)))
    session = attached(model, "dense")
    session.set_masks({"0": {"weight": MASK}})
    loss_of(model(batch(rank))).backward()
    session.step()
    torch.testing.assert_close(seen(session), mean_gradient())


@scenario
def curvature_is_summed_up(rank: int) -> None:
    model = build()
    session = attached(model, "curved")
    parallel = DistributedDataParallel(model)
    session.total_loss(loss_of(parallel(batch(rank)))).backward()
    session.step()
    session.compress()
    expected = torch.zeros(2, 3)
    for other in range(WORLD):
        weight = build()[0].weight
        hessian = torch.autograd.functional.hessian(
            lambda one, other=other: loss_of(torch.tanh(batch(other) @ one.t())), weight
        )
        expected += hessian.sum((2, 3))
    lowest = expected.flatten().argsort()[:3]
    assert (~session.masks()["0"]["weight"]).flatten().nonzero().flatten().tolist() == sorted(
        lowest.tolist()
    )


@scenario
def a_loss_that_passes_a_layer_over_in_one_process_adds_nothing_there(rank: int) -> None:
    model = nn.Sequential(build(), nn.Linear(3, 2, bias=False))
    entry = {"op_types": ["Linear"], "target_names": ["weight"], "sparse_ratio": 0.5}
    stage = {"algorithm": "curved", "config_list": [entry]}
    session = tersely.attach(model, {"pruning": stage})
    loss = loss_of(model[0](batch(rank)))
    if rank == 0:
        loss = loss + loss_of(model[1](batch(rank)))
    session.total_loss(loss).backward()
    session.step()
    session.compress()
    assert session.sparsity()["1"]["weight"] == 0.5
    assert session.sparsity()["0.0"]["weight"] == 0.5


@scenario
def curvature_that_overflows_in_one_process_adds_nothing_there(rank: int) -> None:
    model = build()
    session = attached(model, "curved")
    loss = loss_of(model(batch(0)))
    session.total_loss(loss * (1.0 if rank == 0 else torch.inf))
    session.step()
    session.compress()
    assert session.sparsity()["0"]["weight"] == 0.5


@scenario
def scores_of_the_whole_model_are_summed_up(rank: int) -> None:
    model = build()
    session = attached(model, "flow")
    session.calibrate([batch(rank)])
    session.compress()
    expected = torch.zeros(2, 3)
    for other in range(WORLD):
        weight = build()[0].weight
        (one,) = torch.autograd.grad(torch.tanh(batch(other) @ weight.t()).sum(), weight)
        expected += one.abs()
    lowest = expected.flatten().argsort()[:3]
    assert (~session.masks()["0"]["weight"]).flatten().nonzero().flatten().tolist() == sorted(
        lowest.tolist()
    )


if __name__ == "__main__":
    module = ModuleType("pruners_of_worker")
    vars(module).update(Dense=Dense, Curved=Curved, Flow=Flow, Gated=Gated)
    sys.modules["pruners_of_worker"] = module
    tersely.registry().register(Face(), name="pruners-of-worker")
    main()
