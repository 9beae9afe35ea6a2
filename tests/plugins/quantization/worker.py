"""One of two gloo processes: quantizers that observe, follow and learn, each on data of its own.

What one process would find on all the data is the measure: scales are those, in both processes.
"""

import contextlib
from collections.abc import Iterator

import torch
from messages.sessions import NOT_AVERAGED
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel
from two_processes import WORLD, main, scenario

import tersely

STEPS = 3


class Net(nn.Module):
    """A convolution, its norm and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 3, 3)
        self.norm = nn.BatchNorm2d(3)
        self.head = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.conv(x)).relu().mean((2, 3)))


def build() -> Net:
    torch.manual_seed(0)
    return Net()


def batch(rank: int, step: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(100 * rank + step)
    return torch.randn(4, 2, 5, 5, generator=generator) * (rank + 1)


def recipe(algorithm: str, **options: object) -> dict[str, object]:
    entry = {"op_types": ["Conv2d", "Linear"], "target_names": ["_input_", "weight", "_output_"]}
    return {
        "quantization": {"algorithm": algorithm, "options": options, "config_list": [entry]},
    }


def folded(algorithm: str) -> dict[str, object]:
    found = recipe(algorithm)
    found["quantization"]["config_list"] = [
        {"op_names": ["conv"], "target_names": ["weight"], "fuse_names": [["conv", "norm"]]},
        {"op_names": ["head"], "target_names": ["_input_", "weight"]},
    ]
    return found


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Hide that there is another process."""
    is_initialized = distributed.is_initialized
    distributed.is_initialized = lambda: False
    try:
        yield
    finally:
        distributed.is_initialized = is_initialized


def named_scales(session: tersely.Session) -> dict[str, Tensor]:
    return {
        f"{module}.{target}": qparams.scale
        for module, targets in session.qparams().items()
        for target, qparams in targets.items()
    }


def assert_same_everywhere(session: tersely.Session) -> None:
    own = named_scales(session)
    own |= {name: value.detach() for name, value in session.model.named_parameters()}
    everyone: list[dict[str, Tensor]] = [own] * WORLD
    distributed.all_gather_object(everyone, own)
    for name in own:
        assert torch.equal(everyone[0][name], everyone[1][name]), name


def assert_scales_are(session: tersely.Session, expected: tersely.Session) -> None:
    for name, scale in named_scales(expected).items():
        torch.testing.assert_close(named_scales(session)[name], scale, msg=name)


def calibrated(algorithm: str, batches: list[Tensor], **options: object) -> tersely.Session:
    session = tersely.attach(build(), recipe(algorithm, **options))
    session.calibrate(batches)
    session.compress()
    return session


def train(
    model: nn.Module,
    session: tersely.Session,
    ranks: list[int],
    optimizer: torch.optim.Optimizer | None = None,
    *,
    averaged: bool = False,
) -> None:
    model.train()
    parameters = list(session.model.parameters())
    optimizer = optimizer or torch.optim.SGD(parameters, lr=0.05)
    for step in range(STEPS):
        optimizer.zero_grad()
        losses = [(model(batch(rank, step)) - 1).square().mean() for rank in ranks]
        (sum(losses) / len(losses)).backward()
        if averaged:
            for group in optimizer.param_groups:
                for tensor in group["params"]:
                    distributed.all_reduce(tensor.grad)
                    tensor.grad /= WORLD
        optimizer.step()
        session.step()


def check_calibration(rank: int, **options: object) -> None:
    session = calibrated("ptq", [batch(rank)], **options)
    assert_same_everywhere(session)
    with alone():
        assert_scales_are(session, calibrated("ptq", [batch(0), batch(1)], **options))


@scenario
def ranges_are_those_of_all_data(rank: int) -> None:
    check_calibration(rank)


@scenario
def percentiles_are_the_same_everywhere(rank: int) -> None:
    assert_same_everywhere(calibrated("ptq", [batch(rank)], observer="percentile"))


@scenario
def histograms_are_the_same_everywhere(rank: int) -> None:
    assert_same_everywhere(calibrated("ptq", [batch(rank)], observer="mse"))


@scenario
def biases_are_corrected_alike(rank: int) -> None:
    check_calibration(rank, bias_correction=True)


@scenario
def weights_are_solved_alike(rank: int) -> None:
    for algorithm in ("gptq", "awq", "smoothquant", "adaround"):
        session = calibrated(algorithm, [batch(rank)])
        assert_same_everywhere(session)


@scenario
def a_range_that_follows_training_is_that_of_both(rank: int) -> None:
    """Each moves by the smallest and the largest value that both processes saw."""
    entry = {"op_names": ["conv"], "target_names": ["_input_"]}
    document = {"quantization": {"algorithm": "qat", "config_list": [entry]}}
    session = tersely.attach(build(), document)
    wrapped = DistributedDataParallel(session.model)
    wrapped.train()
    wrapped(batch(rank))
    assert_same_everywhere(session)
    largest = max(batch(0).abs().max(), batch(1).abs().max())
    scale = session.qparams()["conv"]["_input_"].scale
    torch.testing.assert_close(scale, largest / 127)


@scenario
def qat_trains_alike(rank: int) -> None:
    for document in (recipe("qat"), folded("qat")):
        session = tersely.attach(build(), document)
        train(DistributedDataParallel(session.model), session, [rank])
        assert_same_everywhere(session)


@scenario
def qat_trains_alike_when_wrapped_before(rank: int) -> None:
    model = build()
    wrapped = DistributedDataParallel(model)
    session = tersely.attach(model, recipe("qat"))
    train(wrapped, session, [rank])
    assert_same_everywhere(session)


def learning(rank: int | None) -> tersely.Session:
    """LSQ on a model without a norm, whose statistics every process has of its own."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(27, 2))
    session = tersely.attach(model, recipe("lsq", learning_rate=0.01))
    session.calibrate([batch(0), batch(1)] if rank is None else [batch(rank)])
    session.compress()
    return session


@scenario
def scales_are_learned_from_all_data(rank: int) -> None:
    session = learning(rank)
    train(DistributedDataParallel(session.model), session, [rank])
    assert_same_everywhere(session)
    with alone():
        expected = learning(None)
        train(expected.model, expected, [0, 1])
    assert_scales_are(session, expected)


@scenario
def scales_that_the_user_s_optimizer_moves_apart_are_an_error_in_both(rank: int) -> None:
    session = learning(rank)
    wrapped = DistributedDataParallel(session.model)
    tensors = [*session.model.parameters(), *session.parameters()]
    try:
        train(wrapped, session, [rank], torch.optim.SGD(tensors, lr=0.05))
    except tersely.SessionError as error:
        text = str(error)
    assert text == f"what lsq learned of 0.weight and others {NOT_AVERAGED}"


@scenario
def scales_that_the_user_s_loop_averages_are_learned_from_all_data(rank: int) -> None:
    session = learning(rank)
    tensors = [*session.model.parameters(), *session.parameters()]
    optimizer = torch.optim.SGD(tensors, lr=0.05)
    train(session.model, session, [rank], optimizer, averaged=True)
    assert_same_everywhere(session)
    with alone():
        expected = learning(None)
        tensors = [*expected.model.parameters(), *expected.parameters()]
        train(expected.model, expected, [0, 1], torch.optim.SGD(tensors, lr=0.05))
    assert_scales_are(session, expected)


if __name__ == "__main__":
    main()
