"""Jobs whose algorithms rank by what training shows: they train first, or say what is missing."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from messages.documents import NO_TRAINING, WRITE_A_LOOP
from messages.sessions import SEEN_NONE, STEP_FIRST
from safetensors.torch import load_file

import tersely
from tersely.contracts import Grows, ObservesDenseGradients, ObservesGradients
from tersely.errors import ConfigError, SessionError
from tersely.reporting.report import read_report

Run = Callable[..., str]

LOOPS = """
import torch
from toy_parts import HERE, note


def train(model, session, steps=2):
    note("train")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    for _ in range(steps):
        optimizer.zero_grad()
        # The first row of the first weight has a gradient of 1, the second one of 3.
        (model[0].weight.sum(1) * torch.tensor([1.0, 3.0])).sum().backward()
        optimizer.step()
        session.step()


def train_in_two_phases(model, session):
    train(model, session)
    session.compress()
    note("compressed")
    train(model, session)


def forget_to_step(model, session):
    note("train")
"""


class Gradients(ObservesGradients):
    """The sum of gradients, which no weight knows."""

    def observe_gradient(
        self, gradient: torch.Tensor, target: tersely.PruningTarget
    ) -> dict[str, torch.Tensor]:
        return {"sum": gradient.clone()}

    def importance(self, target: tersely.PruningTarget) -> torch.Tensor:
        return target.observed["sum"]


class Growing(Gradients, Grows):
    """The same, growing by itself from nothing."""

    def factor(self, steps: int) -> float:
        return min(steps / 2, 1.0)


class Regrowing(Gradients, ObservesDenseGradients):
    """Magnitudes at first, and the sum of gradients later."""

    def importance(self, target: tersely.PruningTarget) -> torch.Tensor:
        return target.tensor.abs() if target.mask is None else target.observed["sum"]


@pytest.fixture(autouse=True)
def gradient_pruners(provide: Any) -> Iterator[None]:
    pruners = {"gradients": Gradients, "growing": Growing, "regrowing": Regrowing}
    infos: list[Any] = [
        tersely.PrunerInfo(
            name=name,
            implementation=f"tersely_gradients:{name}",
            needs="gradients",
            default_granularity="output_channel",
        )
        for name in pruners
    ]
    infos.append(tersely.ScheduleInfo(name="at_once", implementation="tersely_gradients:at_once"))
    with provide("tersely_gradients", *infos, **pruners, at_once=lambda progress: 1.0):
        yield


@pytest.fixture
def prepare(workshop: Any) -> Callable[..., None]:
    """Write the job with an algorithm and a loop of its own."""
    workshop.code("toy_loops.py", LOOPS)

    def prepare(algorithm: str, loop: str | None = "train", *more: Any, **stage: Any) -> None:
        entry = {"op_names": ["0"], "target_names": ["weight"], "sparse_ratio": 0.5}
        first = {"algorithm": algorithm, "config_list": [entry], **stage}
        train = None if loop is None else f"toy_loops:{loop}"
        workshop.write(recipe={"pruning": [first, *more]}, train=train)

    return prepare


def titles(said: str) -> list[str]:
    return [line.partition("] ")[2] for line in said.splitlines() if line.startswith("[")]


def test_an_algorithm_that_looks_at_gradients_is_compressed_after_training(
    workshop: Any, run: Run, prepare: Callable[..., None]
) -> None:
    prepare("gradients")

    said = run()

    assert titles(said)[3:8] == [
        "attach",
        "train",
        "evaluate the trained model",
        "compress",
        "evaluate the result",
    ]
    weight = load_file(workshop.output / "model.safetensors")["0.weight"]
    assert weight.tolist() == [[0, 0, 0, 0], [5, 6, 7, 8]]


def test_what_compressing_costs_after_training_is_in_the_report(
    workshop: Any, run: Run, prepare: Callable[..., None]
) -> None:
    prepare("gradients")

    run()

    # The first row's 1 + 2 + 3 + 4 + bias 1 goes into the output once, without its weights 1.
    metrics = read_report(workshop.output / "report.json").metrics
    assert metrics == {"before": 68, "trained": 68, "after": 58}


def test_a_loop_may_compress_in_its_middle_and_go_on(
    workshop: Any, run: Run, prepare: Callable[..., None]
) -> None:
    prepare("gradients", "train_in_two_phases")

    said = run()

    assert workshop.diary() == ["build", "evaluate", "train", "compressed", "train", "evaluate"]
    assert "  the training loop has done it\n" in said
    assert list(read_report(workshop.output / "report.json").metrics) == ["before", "after"]


@pytest.mark.parametrize(
    ("algorithm", "stage"),
    [
        ("growing", {}),
        ("gradients", {"schedule": {"name": "toy_line", "every": 1, "times": 2}}),
        ("regrowing", {"schedule": {"name": "at_once", "every": 1, "times": 2}}),
    ],
)
def test_what_grows_from_nothing_has_its_masks_while_it_trains(
    run: Run, prepare: Callable[..., None], workshop: Any, algorithm: str, stage: Any
) -> None:
    prepare(algorithm, **stage)

    said = run()

    assert titles(said)[3:8] == [
        "attach",
        "compress",
        "evaluate the compressed model",
        "train",
        "evaluate the result",
    ]
    weight = load_file(workshop.output / "model.safetensors")["0.weight"]
    assert weight.tolist() == [[0, 0, 0, 0], [5, 6, 7, 8]]


def test_a_schedule_that_masks_something_at_once_waits_for_gradients_too(
    run: Run, prepare: Callable[..., None]
) -> None:
    prepare("gradients", schedule={"name": "at_once", "every": 5, "times": 2})

    assert titles(run())[4:7] == ["train", "evaluate the trained model", "compress"]


def test_a_stage_that_grows_steps_beside_one_that_waits(
    workshop: Any, run: Run, prepare: Callable[..., None]
) -> None:
    growing = {
        "algorithm": "toy",
        "schedule": {"name": "toy_line", "every": 1, "times": 2},
        "config_list": [{"op_names": ["2"], "target_names": ["weight"], "sparse_ratio": 0.5}],
    }
    prepare("gradients", "train", growing)

    run()

    weights = load_file(workshop.output / "model.safetensors")
    assert weights["0.weight"].tolist() == [[0, 0, 0, 0], [5, 6, 7, 8]]
    assert weights["2.weight"].tolist() == [[0, 2]]


def test_a_run_stopped_between_training_and_compressing_goes_on_there(
    workshop: Any, run: Run, prepare: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare("gradients")
    run()
    expected = (workshop.output / "model.safetensors").read_bytes()

    def stop(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("tersely.session.session.Session.compress", stop)
        with pytest.raises(KeyboardInterrupt):
            run()
    workshop.diary()

    said = run(resume=True)

    assert said.startswith("continuing after: before, train, trained\n")
    assert workshop.diary() == ["build", "evaluate"]
    assert (workshop.output / "model.safetensors").read_bytes() == expected


def test_a_loop_that_never_steps_is_told_so(run: Run, prepare: Callable[..., None]) -> None:
    prepare("gradients", "forget_to_step")

    with pytest.raises(SessionError) as caught:
        run()

    assert str(caught.value) == (
        f"0.weight is ranked by gradients, and gradients {SEEN_NONE}; {STEP_FIRST}, then call "
        "session.compress()"
    )


def test_the_built_in_loop_trains_first_too_and_is_resumed_there(
    workshop: Any, run: Run, prepare: Callable[..., None]
) -> None:
    workshop.code(
        "toy_batches.py",
        """
        import torch
        from toy_parts import HERE


        def batches():
            yield torch.ones(1, 4), torch.zeros(1, 1)
            if (HERE / "once").exists() and not (HERE / "twice").exists():
                (HERE / "twice").touch()
                raise KeyboardInterrupt
            (HERE / "once").touch()
        """,
    )
    prepare("gradients")
    job = json.loads(workshop.file.read_text())
    # The output is summed; the second row weighs twice as much in it, and so do its gradients.
    loop = {"epochs": 2, "lr": 1e-9, "optimizer": "sgd", "loss": "l1"}
    data = {"train": "toy_batches:batches"}
    workshop.write(recipe=job["recipe"], train=None, data=data, loop=loop)
    with pytest.raises(KeyboardInterrupt):
        run()

    said = run(resume=True)

    assert said.startswith("continuing after: epoch 1\n")
    assert titles(said)[1:5] == ["plan", "restore the last checkpoint", "train", "compress"]
    weight = load_file(workshop.output / "model.safetensors")["0.weight"]
    assert (weight != 0).tolist() == [[False] * 4, [True] * 4]


@pytest.mark.parametrize("algorithm", ["gradients", "growing"])
def test_without_a_loop_it_is_refused_before_the_model_is_built(
    workshop: Any, run: Run, prepare: Callable[..., None], algorithm: str
) -> None:
    prepare(algorithm, None)

    with pytest.raises(ConfigError) as caught:
        run()

    (problem,) = caught.value.problems
    assert problem.path == "recipe.pruning[0].algorithm"
    assert problem.message == (
        f"'{algorithm}' ranks by what it observes in training, {NO_TRAINING}"
    )
    assert problem.hint == (
        f"{WRITE_A_LOOP} and data: {{train: ...}}, or train: 'module:callable', your own "
        "loop, which takes the model and the session"
    )
    assert workshop.diary() == []
    assert not workshop.partial.exists()


def test_a_recipe_in_a_file_of_its_own_is_refused_where_the_job_names_it(
    workshop: Any, run: Run, prepare: Callable[..., None]
) -> None:
    prepare("gradients")
    job = json.loads(workshop.file.read_text())
    workshop.code("recipe.json", json.dumps(job["recipe"]))
    workshop.write(recipe="recipe.json", train=None)

    with pytest.raises(ConfigError) as caught:
        run()

    assert [problem.path for problem in caught.value.problems] == ["recipe"]
    assert workshop.diary() == []
