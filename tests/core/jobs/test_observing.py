"""What a job tells its observers, and what happens when one of them fails."""

import json

import pytest

from tersely import ConfigError

OBSERVERS = """
import json
from pathlib import Path

PLACE = Path(__file__).parent / "numbers.jsonl"


class Numbers:
    def __init__(self, **made):
        self.made = made

    def _write(self, **line):
        with PLACE.open("a") as stream:
            stream.write(json.dumps(line) + "\\n")

    def observe(self, observation):
        values = {k: v for k, v in observation.values.items() if "/" not in k}
        self._write(step=observation.step, event=observation.event, **values)

    def close(self, *, failed=False):
        self._write(closed=True, failed=failed, **self.made)


def numbers(*, output, resumed_at, colour="red"):
    return Numbers(output=output.name, resumed_at=resumed_at, colour=colour)


class Broken(Numbers):
    def observe(self, observation):
        super().observe(observation)
        raise OSError("no route to host")


def broken(*, output, resumed_at):
    return Broken()


class Exiting(Numbers):
    def observe(self, observation):
        raise SystemExit(0)

    def close(self, *, failed=False):
        raise SystemExit(0)


def exiting(*, output, resumed_at):
    return Exiting()


def curious(*, output, resumed_at, job):
    assert not output.exists()
    assert "observers" not in job
    return Curious(pruned=job["recipe"]["pruning"]["algorithm"], seed=job["seed"], place=str(output))


class Curious(Numbers):
    def close(self, *, failed=False):
        place = Path(self.made.pop("place"))
        self._write(**self.made, written=sorted(one.name for one in place.glob("report.*")))


def nothing(*, output, resumed_at):
    return None


def unreachable(*, output, resumed_at):
    raise OSError("no route to host")


def greedy(output):
    return Numbers()
"""


@pytest.fixture
def observed(workshop):
    """The lines that observers wrote; the job has the first of them."""
    workshop.code("toy_observers.py", OBSERVERS)

    def observed(*observers, **changes):
        workshop.write(observers=list(observers), **changes)

    return observed


def lines(workshop):
    text = (workshop.folder / "numbers.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def test_observers_are_told_scores_and_masks_and_closed(workshop, run, observed):
    observed({"create": "toy_observers:numbers", "args": {"colour": "blue"}})

    run()

    assert lines(workshop) == [
        {"step": 0, "event": "note", "before": 68.0},
        {"step": 0, "event": "compress", "total_sparsity": 6 / 13},
        {"step": 0, "event": "note", "compressed": 57.0},
        {"step": 3, "event": "note", "after": lines(workshop)[3]["after"]},
        {"closed": True, "failed": False, "output": "first", "resumed_at": None, "colour": "blue"},
    ]


def test_an_observer_that_asks_for_the_job_is_told_it_and_finds_the_output_when_it_is_closed(
    workshop, run, observed
):
    observed({"create": "toy_observers:curious"})

    run()

    assert lines(workshop)[-1] == {
        "pruned": "toy",
        "seed": 7,
        "written": ["report.html", "report.json"],
    }


def test_an_interrupted_run_closes_observers_as_failed_and_the_next_one_resumes(
    workshop, run, observed
):
    observed({"create": "toy_observers:numbers"})
    (workshop.folder / "interrupt").touch()
    with pytest.raises(KeyboardInterrupt):
        run()
    (workshop.folder / "interrupt").unlink()

    run(resume=True)

    told = lines(workshop)
    closed = [(line["failed"], line["resumed_at"]) for line in told if "closed" in line]
    assert closed == [(True, None), (False, 0)]
    assert [line for line in told if "before" in line] == told[:1]


def test_an_observer_that_fails_is_left_out_and_the_run_goes_on(workshop, run, observed):
    observed({"create": "toy_observers:broken"}, {"create": "toy_observers:numbers"})

    said = run()

    assert (
        "  observer toy_observers:broken failed at step 0 and is ignored from now on: OSError: no "
        "route to host" in said
    )
    assert said.count("is ignored from now on") == 1
    assert [line["before"] for line in lines(workshop) if "before" in line] == [68.0, 68.0]
    assert [line["after"] for line in lines(workshop) if "after" in line] != []


def test_an_observer_that_exits_does_not_end_the_run(workshop, run, observed):
    observed({"create": "toy_observers:exiting"})

    said = run()

    assert "failed at step 0 and is ignored from now on: SystemExit: 0" in said
    assert "failed when it was closed: SystemExit: 0" in said
    assert (workshop.output / "report.json").exists()


@pytest.mark.parametrize(
    ("observer", "place", "text"),
    [
        (
            {"create": "toy_observers:nmbers"},
            "observers[0].create",
            "'toy_observers' has no attribute 'nmbers'",
        ),
        (
            {"create": "toy_observers:numbers", "args": {"color": "blue"}},
            "observers[0].args",
            "got an unexpected keyword argument 'color'",
        ),
        ({"create": "toy_observers:greedy"}, "observers[0].create", "'resumed_at'"),
        (
            {"create": "toy_observers:numbers", "args": {"output": "x"}},
            "observers[0].args.output",
            "'output' is given by the job; remove it",
        ),
        (
            {"create": "toy_observers:curious", "args": {"job": "x"}},
            "observers[0].args.job",
            "'job' is given by the job; remove it",
        ),
        (
            {"create": "toy_observers:nothing"},
            "observers[0].create",
            "returned a NoneType, expected an object with the methods observe and close",
        ),
        (
            {"create": "toy_observers:unreachable"},
            "observers[0].create",
            "failed: OSError: no route to host",
        ),
    ],
)
def test_an_observer_that_cannot_be_made_is_an_error_before_anything_is_compressed(
    workshop, run, observed, observer, place, text
):
    observed(observer)

    with pytest.raises(ConfigError) as raised:
        run()

    (problem,) = raised.value.problems
    assert problem.path == place
    assert text in problem.message
    assert "train" not in workshop.diary()


def test_a_resumed_run_may_have_other_observers(workshop, run, observed):
    observed({"create": "toy_observers:unreachable"}, train="toy_parts:finetune")
    workshop.write()
    (workshop.folder / "fail").touch()
    with pytest.raises(RuntimeError, match="the disk is full"):
        run()
    (workshop.folder / "fail").unlink()
    observed({"create": "toy_observers:numbers"})

    run(resume=True)

    assert lines(workshop)[-1]["resumed_at"] == 0
