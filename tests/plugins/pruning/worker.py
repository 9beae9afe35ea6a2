"""One of two gloo processes: pruners that observe and learn, each process with data of its own.

What one process would see on all the data is the measure: masks are those, in both processes.
"""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from messages.sessions import NOT_AVERAGED, features
from torch import Tensor, distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel
from two_processes import WORLD, main, scenario

import tersely

OPTIONS = {
    "slim": {"regular_scale": 0.01},
    "movement": {"warmup_steps": 1, "cooldown_begin_step": 6},
}
STEPS = 8


class Block(nn.Module):
    """One of two equal blocks."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.inner(x).relu()


class Net(nn.Module):
    """A stem whose rows do not divide evenly by two processes, a row of blocks, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(6, 9)
        self.narrow = nn.Linear(9, 8)
        self.blocks = nn.Sequential(Block(), Block())
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(self.narrow(self.stem(x).relu())))


class Experts(nn.Module):
    """Two experts, of which the sign of the data's mean chooses one."""

    def __init__(self) -> None:
        super().__init__()
        self.plus = nn.Linear(6, 4, bias=False)
        self.minus = nn.Linear(6, 4, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.plus(x) if float(x.mean()) > 0 else self.minus(x)


def build(kind: Callable[[], nn.Module] = Net) -> nn.Module:
    torch.manual_seed(0)
    return kind()


def batch(rank: int, step: int = 0, size: int = 12) -> Tensor:
    generator = torch.Generator().manual_seed(100 * rank + step)
    return torch.randn(size, 6, generator=generator)


def recipe(algorithm: str, **stage: object) -> dict[str, object]:
    entry = {"op_types": ["Linear"], "sparse_ratio": 0.5}
    return {
        "pruning": {
            "algorithm": algorithm,
            "options": OPTIONS.get(algorithm, {}),
            "config_list": [entry],
            **stage,
        }
    }


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)


def loss_of(model: nn.Module, rank: int, step: int) -> Tensor:
    return (model(batch(rank, step)) - 1).square().mean()


def train(model: nn.Module, session: tersely.Session, rank: int, *, parts: int = 1) -> None:
    """Train one process's share; only the last part of a step is synchronized."""
    optimizer = sgd(model)
    for step in range(STEPS):
        optimizer.zero_grad()
        for part in range(parts):
            is_waiting = part < parts - 1 and isinstance(model, DistributedDataParallel)
            with model.no_sync() if is_waiting else contextlib.nullcontext():
                loss = loss_of(model, rank, parts * step + part)
                (session.total_loss(loss) / parts).backward()
        optimizer.step()
        session.step()


def train_alone(model: nn.Module, session: tersely.Session, *, parts: int = 1) -> None:
    """The same in one process: the mean over everything that both see."""
    optimizer = sgd(model)
    for step in range(STEPS):
        optimizer.zero_grad()
        losses = [
            loss_of(model, rank, parts * step + part)
            for rank in range(WORLD)
            for part in range(parts)
        ]
        session.total_loss(sum(losses) / len(losses)).backward()
        optimizer.step()
        session.step()


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Hide that there is another process."""
    is_initialized = distributed.is_initialized
    distributed.is_initialized = lambda: False
    try:
        yield
    finally:
        distributed.is_initialized = is_initialized


def trained_alone(algorithm: str, *, parts: int = 1) -> tersely.Session:
    with alone():
        model = build()
        session = tersely.attach(model, recipe(algorithm))
        train_alone(model, session, parts=parts)
        session.compress()
    return session


def assert_same_masks(session: tersely.Session, expected: tersely.Session) -> None:
    found = session.masks()
    for module, targets in expected.masks().items():
        for target, mask in targets.items():
            assert torch.equal(found[module][target], mask), f"{module}.{target}"
    assert_same_everywhere(session)


def assert_same_everywhere(session: tersely.Session) -> None:
    """Masks and weights are the same in both processes, to the bit."""
    own = {
        f"{module}.{target}": mask
        for module, targets in session.masks().items()
        for target, mask in targets.items()
    }
    own.update(whole_state(session.model))
    everyone: list[dict[str, Tensor]] = [own] * WORLD
    distributed.all_gather_object(everyone, own)
    for name in own:
        assert torch.equal(everyone[0][name], everyone[1][name]), name


def whole_state(model: nn.Module) -> dict[str, Tensor]:
    return {
        name: value.full_tensor() if hasattr(value, "full_tensor") else value.detach()
        for name, value in model.named_parameters()
    }


def check_training(algorithm: str, rank: int, *, parts: int = 1) -> None:
    model = build()
    session = tersely.attach(model, recipe(algorithm))
    train(DistributedDataParallel(model), session, rank, parts=parts)
    session.compress()
    assert_same_masks(session, trained_alone(algorithm, parts=parts))


@scenario
def taylor_with_ddp(rank: int) -> None:
    check_training("taylor", rank)


@scenario
def slim_with_ddp(rank: int) -> None:
    check_training("slim", rank)


@scenario
def movement_with_ddp(rank: int) -> None:
    check_training("movement", rank)


@scenario
def taylor_with_ddp_and_accumulation(rank: int) -> None:
    check_training("taylor", rank, parts=2)


@scenario
def slim_with_ddp_and_accumulation(rank: int) -> None:
    check_training("slim", rank, parts=2)


@scenario
def movement_with_ddp_and_accumulation(rank: int) -> None:
    check_training("movement", rank, parts=2)


def check_calibration(
    algorithm: str, rank: int, *, is_sharded: bool = False, **options: object
) -> tersely.Session:
    """Unequal numbers of samples, so that a mean of means would be wrong."""
    sizes = (5, 30)
    # Sharded parameters are gathered in every call, so all processes make equally many.
    counts = (2, 2) if is_sharded else (1, 2)
    batches = [
        [batch(one, step, sizes[one]) for step in range(counts[one])] for one in range(WORLD)
    ]
    model = build()
    if is_sharded:
        shard(model)
    session = tersely.attach(model, recipe(algorithm, options=options))
    session.calibrate(batches[rank])
    session.compress()
    with alone():
        expected = tersely.attach(build(), recipe(algorithm, options=options))
        expected.calibrate(batches[0] + batches[1])
        expected.compress()
    assert_same_masks(session, expected)
    for name, value in whole_state(expected.model).items():
        torch.testing.assert_close(whole_state(model)[name], value, rtol=1e-4, atol=1e-5)
    return session


@scenario
def apoz_sees_all_data(rank: int) -> None:
    check_calibration("apoz", rank)


@scenario
def mean_activation_sees_all_data(rank: int) -> None:
    check_calibration("mean_activation", rank)


@scenario
def wanda_sees_all_data(rank: int) -> None:
    check_calibration("wanda", rank)
    check_calibration("wanda", rank, sequential=False)


@scenario
def sparsegpt_sees_all_data(rank: int) -> None:
    check_calibration("sparsegpt", rank)
    check_calibration("sparsegpt", rank, sequential=False)


@scenario
def an_expert_that_one_process_calls_counts_with_what_it_saw(rank: int) -> None:
    data = (batch(0).abs(), -batch(1).abs())
    for algorithm in ("apoz", "wanda"):
        session = tersely.attach(build(Experts), recipe(algorithm))
        session.calibrate([data[rank]])
        session.compress()
        with alone():
            expected = tersely.attach(build(Experts), recipe(algorithm))
            expected.calibrate(data)
            expected.compress()
        assert_same_masks(session, expected)


@scenario
def an_expert_that_no_process_calls_is_an_error_in_both(rank: int) -> None:
    session = tersely.attach(build(Experts), recipe("apoz"))
    text = error_of(tersely.CalibrationError, lambda: session.calibrate([batch(rank).abs()]))
    assert text.startswith("minus.weight: its module was not called in calibration")


@scenario
def a_batch_that_fails_in_one_process_is_an_error_in_both(rank: int) -> None:
    session = tersely.attach(build(Net), recipe("apoz"))
    batches = [batch(rank), torch.ones(3, 5 + rank)]  # of which the model takes 6 features
    text = fails_in_the_first(rank, lambda: session.calibrate(batches))
    assert text.endswith("shapes cannot be multiplied (3x5 and 6x9)"), text


@scenario
def a_batch_that_fails_in_one_process_block_by_block_is_an_error_in_both(rank: int) -> None:
    for sequential in (True, False):
        session = tersely.attach(
            build(Net), recipe("sparsegpt", options={"sequential": sequential})
        )
        batches = [batch(rank), torch.ones(3, 5 + rank)]
        text = fails_in_the_first(rank, lambda s=session, b=batches: (s.calibrate(b), s.compress()))
        assert features(5, 6) in text or "3x5 and 6x9" in text, text


def fails_in_the_first(rank: int, act: Callable[[], object]) -> str:
    if rank == 0:
        return error_of(RuntimeError, act)
    text = error_of(tersely.CalibrationError, act)
    assert text.startswith("process 0 of 2 failed, so this one cannot continue: "), text
    return text


@scenario
def factors_of_an_expert_learn_in_both_processes_alike(rank: int) -> None:
    data = (batch(0).abs(), -batch(1).abs())
    model = build(Experts)
    session = tersely.attach(model, recipe("slim"))
    wrapped = DistributedDataParallel(model, find_unused_parameters=True)
    wrapped(data[rank]).square().mean().backward()
    sgd(model).step()
    session.step()
    with alone():
        expected = tersely.attach(build(Experts), recipe("slim"))
        (sum(expected.model(one).square().mean() for one in data) / WORLD).backward()
        expected.step()
    for one, other in zip(factors(session), factors(expected), strict=True):
        torch.testing.assert_close(one, other)
        assert bool((one != 1).all())
    assert_same_everywhere(session)


def factors(session: tersely.Session) -> list[Tensor]:
    return [tensor for name, tensor in session.state()[0].items() if name.startswith("learned:")]


@scenario
def scores_that_the_users_optimizer_moves_apart_are_an_error_in_both(rank: int) -> None:
    model = build()
    session = tersely.attach(model, recipe("slim"))
    wrapped = DistributedDataParallel(model)
    optimizer = torch.optim.SGD([*model.parameters(), *session.parameters()], lr=0.1)
    loss_of(wrapped, rank, 0).backward()
    optimizer.step()
    session.step()
    text = error_of(tersely.SessionError, session.compress)
    assert text == f"what slim learned of stem.weight and others {NOT_AVERAGED}"


@scenario
def scores_that_the_users_loop_averages_decide_alike(rank: int) -> None:
    model = build()
    session = tersely.attach(model, recipe("slim"))
    wrapped = DistributedDataParallel(model)
    learned = list(session.parameters())
    optimizer = torch.optim.SGD([*model.parameters(), *learned], lr=0.1)
    loss_of(wrapped, rank, 0).backward()
    for one in learned:
        distributed.all_reduce(one.grad)
        one.grad /= WORLD
    optimizer.step()
    session.step()
    session.compress()
    assert_same_everywhere(session)


def error_of(kind: type[Exception], act: Callable[[], object]) -> str:
    try:
        act()
    except kind as error:
        return str(error)
    raise AssertionError(f"no {kind.__name__}")


def shard(model: Net) -> None:
    mesh = init_device_mesh("cpu", (WORLD,))
    for module in (model.stem, model.narrow, *model.blocks, model.head, model):
        fully_shard(module, mesh=mesh)


def check_sharded(algorithm: str, rank: int, *, is_sharded_first: bool) -> None:
    model = build()
    if is_sharded_first:
        shard(model)
    session = tersely.attach(model, recipe(algorithm))
    if not is_sharded_first:
        shard(model)
    train(model, session, rank)
    session.compress()
    expected = trained_alone(algorithm)
    assert_same_masks(session, expected)
    for name, value in whole_state(expected.model).items():
        torch.testing.assert_close(whole_state(model)[name], value, rtol=1e-4, atol=1e-5)


@scenario
def taylor_with_fsdp(rank: int) -> None:
    check_sharded("taylor", rank, is_sharded_first=True)


@scenario
def taylor_attached_before_fsdp_is_an_error_in_both(rank: int) -> None:
    model = build()
    session = tersely.attach(model, recipe("taylor"))
    shard(model)
    text = error_of(tersely.SessionError, lambda: train(model, session, rank))
    assert text == (
        "stem.weight is another parameter than when the session was attached, so taylor does not "
        "see its gradients; fully_shard(), load_state_dict(assign=True) and "
        "torch.utils.swap_tensors() replace parameters: call them before tersely.attach() or "
        "tersely.load_session()"
    )


@scenario
def calibration_with_fsdp(rank: int) -> None:
    for algorithm in ("apoz", "mean_activation"):
        check_calibration(algorithm, rank, is_sharded=True)
    for algorithm in ("wanda", "sparsegpt"):
        check_calibration(algorithm, rank, is_sharded=True, sequential=False)


@scenario
def going_block_by_block_with_fsdp_is_an_error_in_both(rank: int) -> None:
    model = build()
    shard(model)
    session = tersely.attach(model, recipe("wanda"))
    session.calibrate([batch(rank)])
    text = error_of(tersely.SessionError, session.compress)
    assert text == (
        "stem.weight is sharded, and wanda works block by block, which fully_shard() does not "
        "allow; compress before fully_shard(), or give the algorithm the option sequential: false"
    )
    assert session.masks() == {}


@scenario
def slim_with_fsdp(rank: int) -> None:
    for is_sharded_first in (True, False):
        check_sharded("slim", rank, is_sharded_first=is_sharded_first)


@scenario
def movement_with_fsdp(rank: int) -> None:
    for is_sharded_first in (True, False):
        check_sharded("movement", rank, is_sharded_first=is_sharded_first)


@scenario
def a_session_that_one_process_saved_goes_on_in_both(rank: int, folder: Path) -> None:
    for number, (algorithm, schedule) in enumerate(
        [("taylor", "agp"), ("slim", "agp"), ("movement", None), ("apoz", "linear")]
    ):
        growth = {} if schedule is None else {"schedule": SCHEDULE | {"name": schedule}}
        model = build()
        session = tersely.attach(model, recipe(algorithm, **growth))
        if algorithm == "apoz":
            session.calibrate([batch(rank)])
            session.compress()
        train(DistributedDataParallel(model), session, rank)
        place = folder / f"saved-{number}"
        if rank == 0:
            session.save(place)
        distributed.barrier()
        again = build()
        again.load_state_dict(whole_state(model), strict=False)
        resumed = tersely.load_session(again, place)
        for one, its in ((model, session), (again, resumed)):
            train(DistributedDataParallel(one), its, rank)
        assert_same_masks(resumed, session)
        for name, value in whole_state(model).items():
            assert torch.equal(whole_state(again)[name], value), f"{algorithm}: {name}"


SCHEDULE = {"every": 3, "times": 4}


if __name__ == "__main__":
    main()
