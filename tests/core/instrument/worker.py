"""One of two gloo processes: how instruments and sessions meet DDP and FSDP2."""

import sys
import warnings
from pathlib import Path
from types import ModuleType

import torch
from messages.sessions import NO_BATCH, ONE_SHAPE
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.nn.parallel import DistributedDataParallel
from two_processes import WORLD, main, scenario

import tersely
from tersely.engine.processes import average_gradients


class Net(nn.Module):
    """A prunable model whose rows do not divide evenly by two processes."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 5)
        self.act = nn.ReLU()
        self.last = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.act(self.first(x)))


class Magnitude:
    """Importance by magnitude."""

    def importance(self, target: tersely.PruningTarget) -> Tensor:
        return target.tensor.abs()


class Face:
    """Makes ``toy`` known in this process, as the suite's own fixture does in the tests'."""

    @tersely.hookimpl
    def tersely_pruners(self) -> list[tersely.PrunerInfo]:
        return [tersely.PrunerInfo(name="toy", implementation="tersely_toy:Magnitude")]

    @tersely.hookimpl
    def tersely_schedules(self) -> list[tersely.ScheduleInfo]:
        return [tersely.ScheduleInfo(name="toy_line", implementation="tersely_toy:line")]


CONFIG = [{"op_types": ["Linear"], "sparse_ratio": 0.5}]
GRADUAL = {
    "pruning": {
        "algorithm": "toy",
        "schedule": {"name": "toy_line", "every": 1, "times": 3},
        "config_list": CONFIG,
    }
}
OUTPUT = [{"op_names": ["act"], "target_names": ["_output_"], "sparse_ratio": 0.4}]


def build() -> Net:
    torch.manual_seed(0)
    return Net()


def batch(rank: int) -> Tensor:
    return torch.randn(4, 6, generator=torch.Generator().manual_seed(rank))


def mesh() -> DeviceMesh:
    return init_device_mesh("cpu", (WORLD,))


def shard(model: Net) -> None:
    for module in (model.first, model.last, model):
        fully_shard(module, mesh=mesh())


def train(model: nn.Module, session: tersely.Session, rank: int, *, steps: int = 3) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)
    for _ in range(steps):
        model(batch(rank)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        session.step()


def reference(steps: int = 3) -> tuple[Net, tersely.Session]:
    """The same training in one process: the mean over both processes' batches."""
    model = build()
    session = tersely.attach(model, GRADUAL)
    session.compress()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)
    for _ in range(steps):
        losses = [model(batch(rank)).square().mean() for rank in range(WORLD)]
        (sum(losses) / WORLD).backward()
        optimizer.step()
        optimizer.zero_grad()
        session.step()
    return model, session


def assert_masks_are(session: tersely.Session, expected: tersely.Session) -> None:
    for module, targets in expected.masks().items():
        for target, mask in targets.items():
            assert torch.equal(session.masks()[module][target], mask), f"{module}.{target}"


def assert_close(model: nn.Module, expected: Net) -> None:
    for name, value in expected.named_parameters():
        found = dict(model.named_parameters())[name]
        whole = found.full_tensor() if hasattr(found, "full_tensor") else found
        torch.testing.assert_close(whole, value, msg=name)


@scenario
def ddp_after_attach(rank: int) -> None:
    model = build()
    session = tersely.attach(model, GRADUAL)
    session.compress()
    train(DistributedDataParallel(model), session, rank)
    expected, reference_session = reference()
    assert_close(model, expected)
    assert_masks_are(session, reference_session)


@scenario
def ddp_before_attach(rank: int) -> None:
    model = build()
    wrapped = DistributedDataParallel(model)
    session = tersely.attach(model, GRADUAL)
    session.compress()
    train(wrapped, session, rank)
    expected, reference_session = reference()
    assert_close(model, expected)
    assert_masks_are(session, reference_session)


@scenario
def attach_to_the_wrapper(rank: int) -> None:
    wrapped = DistributedDataParallel(build())
    session = tersely.prune(wrapped, CONFIG, algorithm="toy")
    wrapped(batch(rank)).sum().backward()
    assert session.sparsity()["module.first"]["weight"] == 0.5
    assert session.finalize() is wrapped


@scenario
def fsdp_after_attach(rank: int) -> None:
    model = build()
    session = tersely.attach(model, GRADUAL)
    session.compress()
    shard(model)
    train(model, session, rank)
    expected, reference_session = reference()
    assert_close(model, expected)
    assert_masks_are(session, reference_session)


@scenario
def fsdp_before_attach(rank: int) -> None:
    model = build()
    shard(model)
    session = tersely.attach(model, GRADUAL)
    session.compress()
    train(model, session, rank)
    expected, reference_session = reference()
    assert_close(model, expected)
    assert_masks_are(session, reference_session)


@scenario
def fsdp_finalize(rank: int) -> None:
    for is_sharded_first in (True, False):
        model = build()
        if is_sharded_first:
            shard(model)
        session = tersely.prune(model, CONFIG, algorithm="toy")
        if not is_sharded_first:
            shard(model)
        before = dict(model.named_parameters())
        expected = model(batch(rank)).detach()
        session.finalize()
        assert all(before[name] is value for name, value in model.named_parameters())
        assert [type(module).__name__ for module in model.children()] == [
            "FSDPLinear",
            "ReLU",
            "FSDPLinear",
        ]
        assert not any("_tersely" in name for name in model.state_dict())
        torch.testing.assert_close(model(batch(rank)), expected)
        model(batch(rank)).sum().backward()
        weight = model.first.weight.full_tensor()
        assert int((weight == 0).sum()) == 15


@scenario
def fsdp_detach(rank: int) -> None:
    dense = build()
    for is_sharded_first in (True, False):
        model = build()
        if is_sharded_first:
            shard(model)
        session = tersely.prune(model, CONFIG, algorithm="toy")
        if not is_sharded_first:
            shard(model)
        model(batch(rank)).sum().backward()
        session.detach()
        torch.testing.assert_close(model(batch(rank)), dense(batch(rank)))
        model(batch(rank)).sum().backward()
        for name, value in dense.named_parameters():
            assert torch.equal(dict(model.named_parameters())[name].full_tensor(), value)


@scenario
def held_weights_are_masked_whoever_shares_them(rank: int) -> None:
    stage = {"algorithm": "toy", "hold": "step", "config_list": CONFIG}
    dense = build()
    for share in (DistributedDataParallel, shard):
        for is_shared_first in (True, False):
            model = build()
            shared = share(model) if is_shared_first else None
            session = tersely.attach(model, {"pruning": stage})
            session.compress()
            shared = shared or (None if is_shared_first else share(model)) or model
            expected = model(batch(rank)).detach()
            session.step()
            torch.testing.assert_close(model(batch(rank)), expected)
            train(shared, session, rank, steps=1)
            session.detach()
            for name, value in dense.named_parameters():
                found = dict(model.named_parameters())[name].detach()
                found = found.full_tensor() if hasattr(found, "full_tensor") else found
                assert int((found == 0).sum()) == 0, name
                assert found.shape == value.shape


@scenario
def fsdp_shows_shards_as_they_are(rank: int) -> None:
    model = build()
    session = tersely.prune(model, CONFIG, algorithm="toy")
    shard(model)
    assert model.first.weight is dict(model.named_parameters())["first.weight"]
    session.detach()


@scenario
def fsdp_keeps_output_masks(rank: int) -> None:
    model = build()
    session = tersely.prune(
        model,
        [*OUTPUT, {"op_names": ["last"], "target_names": ["_input_"], "sparse_ratio": 0.4}],
        algorithm="toy",
        data=[batch(0)],
    )
    shard(model)
    expected = model(batch(rank)).detach()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        session.finalize()
    assert "act._output_, last._input_" in str(caught[0].message)
    assert type(model.last).__name__ == "FSDPLinear"
    torch.testing.assert_close(model(batch(rank)), expected)
    model(batch(rank)).sum().backward()


@scenario
def calibration_is_summed_up(rank: int) -> None:
    model = build()
    session = tersely.prune(model, OUTPUT, algorithm="toy", data=[batch(rank)])
    alone = build()
    whole = torch.cat([batch(0), batch(1)])
    importance = alone.act(alone.first(whole)).mean(0)
    lowest = importance.argsort()[:2]
    assert sorted((~session.masks()["act"]["_output_"]).nonzero().flatten().tolist()) == sorted(
        lowest.tolist()
    )


@scenario
def calibration_without_a_batch_fails_everywhere(rank: int) -> None:
    session = tersely.attach(build(), {"pruning": {"algorithm": "toy", "config_list": OUTPUT}})
    try:
        session.calibrate([batch(0)] if rank == 0 else [])
    except tersely.CalibrationError as error:
        text = str(error)
    assert text == f"{NO_BATCH} in process 1; pass at least one"


@scenario
def calibration_with_two_shapes_fails_everywhere(rank: int) -> None:
    session = tersely.attach(build(), {"pruning": {"algorithm": "toy", "config_list": OUTPUT}})
    shape = (4, 6) if rank == 0 else (4, 2, 6)
    try:
        session.calibrate([torch.zeros(shape)])
    except tersely.CalibrationError as error:
        text = str(error)
    assert text == f"act._output_ has another shape in each process: [[5], [2, 5]] {ONE_SHAPE}"


@scenario
def fsdp_in_mixed_precision(rank: int) -> None:
    model = build()
    session = tersely.prune(model, CONFIG, algorithm="toy")
    policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16)
    fully_shard(model, mesh=mesh(), mp_policy=policy)
    output = model(batch(rank))
    assert output.dtype is torch.bfloat16
    session.finalize()
    assert torch.equal(model(batch(rank)), output)


@scenario
def fsdp_goes_on_from_a_saved_session(rank: int, folder: Path) -> None:
    model = build()
    shard(model)
    session = tersely.attach(model, GRADUAL)
    session.compress()
    train(model, session, rank, steps=2)
    session.save(folder / f"session-{rank}")
    fresh = build()
    fresh.load_state_dict(whole_state(model), strict=False)
    shard(fresh)
    again = tersely.load_session(fresh, folder / f"session-{rank}")
    assert_masks_are(again, session)
    assert torch.equal(fresh(batch(rank)), model(batch(rank)))


@scenario
def gradients_are_averaged(rank: int) -> None:
    both, one, none = (nn.Parameter(torch.zeros(2)) for _ in range(3))
    both.grad = torch.tensor([1.0, 2.0]) + 4 * rank
    if rank == 0:
        one.grad = torch.tensor([6.0, 8.0])
    average_gradients([both, one, none])
    # Means of [1, 2] and [5, 6], and of [6, 8] and nothing.
    assert both.grad.tolist() == [3, 4]
    assert one.grad.tolist() == [3, 4]
    assert none.grad is None


def whole_state(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.full_tensor() for name, value in model.named_parameters()}


if __name__ == "__main__":
    toy = ModuleType("tersely_toy")
    toy.Magnitude, toy.line = Magnitude, lambda progress: progress
    sys.modules["tersely_toy"] = toy
    tersely.registry().register(Face(), name="tersely-toy")
    main()
