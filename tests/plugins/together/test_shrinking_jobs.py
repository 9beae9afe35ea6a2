"""Jobs whose stages end with shrink: killed and resumed, reported, loaded and shrunk afterwards."""

import io
import json
import signal
import warnings

import pytest
import torch
from click.testing import CliRunner
from rich.console import Console
from safetensors.torch import load_file

import tersely
from tersely.cli.main import cli
from tersely.jobs.runner import run_job
from tersely.session.finalizing.baking import FinalizeWarning

CODE = """
import os
from pathlib import Path

import torch
from torch import nn

HERE = Path(__file__).parent


def build():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2)
    )


def example():
    return torch.randn(2, 3, 8, 8)


def labelled():
    return [(example(), torch.tensor([0, 1]))]


def epoch():
    for number in range(3):
        # The process is killed in the middle of the epoch whose turn it is.
        stop = HERE / "stop"
        if number == 1 and stop.exists():
            turns = int(stop.read_text()) - 1
            stop.write_text(str(turns))
            if not turns:
                stop.unlink()
                os.kill(os.getpid(), 9)
        yield torch.randn(4, 3, 8, 8), torch.randint(0, 2, (4,))


def listed():
    return list(epoch())


def evaluate(model):
    return sum(parameter.numel() for parameter in model.parameters())


def own_loop(model, session):
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
    for _ in range(6):
        optimizer.zero_grad()
        model(example()).square().mean().backward()
        optimizer.step()
        session.step(optimizer=optimizer)
"""
# An input that is quantized stays so in the finished model, which says it once.
pytestmark = pytest.mark.filterwarnings("ignore::tersely.session.finalizing.baking.FinalizeWarning")

PRUNING = {"algorithm": "l1_norm", "config_list": [{"op_names": ["0"], "sparse_ratio": 0.5}]}
GROWING = {**PRUNING, "schedule": {"name": "agp", "times": 3}}
PIPELINE = {
    "stages": [
        {"until": 5, "shrink": True, "pruning": GROWING},
        {
            "quantization": {
                "algorithm": "qat",
                "config_list": [{"op_types": ["Linear"], "target_names": ["_input_", "weight"]}],
            },
            "distillation": {"config_list": [{"op_names": ["4"]}]},
        },
    ]
}
JOB = {
    "model": "shrunk_parts:build",
    "teacher": "shrunk_parts:build",
    "data": {
        "train": "shrunk_parts:epoch",
        "example": "shrunk_parts:example",
        "evaluate": "shrunk_parts:evaluate",
    },
    "loop": {"epochs": 3, "lr": 0.01, "loss": "cross_entropy"},
    "recipe": PIPELINE,
    "output": "runs/first",
    "seed": 0,
}
DENSE, SMALL = 8 * 27 + 8 + 18, 4 * 27 + 4 + 10


class Shop:
    """A folder with a job."""

    def __init__(self, folder):
        self.folder = folder
        self.output = folder / "runs" / "first"
        (folder / "shrunk_parts.py").write_text(CODE, encoding="utf-8")
        self.write()

    def write(self, **changes):
        job = {key: value for key, value in {**JOB, **changes}.items() if value is not None}
        (self.folder / "job.json").write_text(json.dumps(job), encoding="utf-8")

    def run(self, **options):
        said = Console(file=io.StringIO(), width=200)
        report = run_job(self.folder / "job.json", console=said, **options)
        return report, said.file.getvalue()

    def in_a_process(self, fresh):
        return fresh.run("-m", "tersely.cli.main", "run", "job.json", cwd=self.folder)

    def build(self):
        names = {}
        exec(compile(CODE.replace("__file__", "'.'"), "parts", "exec"), names)
        return names["build"]()


@pytest.fixture
def shop(tmp_path):
    return Shop(tmp_path)


def results(folder):
    files = [folder / "model.safetensors", *sorted((folder / "session").iterdir())]
    return {path.name: path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The result of a run that nobody interrupts."""
    shop = Shop(tmp_path_factory.mktemp("whole"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FinalizeWarning)
        shop.run()
    return results(shop.output)


# Inside of the second epoch, before the model is shrunk, and inside of the third, after it.
@pytest.mark.parametrize("epoch", [2, 3])
def test_a_killed_job_goes_on_bit_for_bit(shop, whole, epoch, fresh):
    (shop.folder / "stop").write_text(str(epoch))
    killed = shop.in_a_process(fresh)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    _, said = shop.run(resume=True)
    assert f"epoch {epoch - 1}\n" in said
    assert results(shop.output) == whole


def test_the_result_is_small_and_its_report_says_how(shop):
    report, said = shop.run()
    (shrunk,) = report.shrinks
    assert shrunk.parameters == (DENSE, SMALL)
    assert report.metrics["before"] == DENSE
    assert report.metrics["after"] == SMALL
    assert "made smaller" in said
    assert f"{DENSE} -&gt; {SMALL}" in (shop.output / "report.html").read_text()
    assert load_file(shop.output / "model.safetensors")["0.weight"].shape == (4, 3, 3, 3)


def test_the_small_model_is_loaded_from_the_run(shop):
    shop.write(recipe={"pruning": {**GROWING, "shrink": True}}, teacher=None)
    shop.run()
    inputs = torch.randn(2, 3, 8, 8)
    loaded = tersely.load_shrunk(shop.build(), shop.output).eval()
    assert loaded[0].out_channels == 4
    torch.testing.assert_close(loaded(inputs), tersely.load_run(shop.output)(inputs))


def test_the_first_calibration_batch_is_the_example_where_the_job_has_none(shop):
    data = {"calibration": "shrunk_parts:labelled", "labels": True}
    recipe = {"pruning": {**PRUNING, "shrink": {"round_to": 4}}}
    shop.write(recipe=recipe, teacher=None, data=data, loop=None)
    report, _ = shop.run()
    assert report.shrinks[0].parameters == (DENSE, SMALL)


def test_a_loop_of_ones_own_hands_its_optimizer_to_step(shop):
    data = {"example": "shrunk_parts:example"}
    recipe = {"pruning": {**GROWING, "shrink": True}}
    shop.write(recipe=recipe, teacher=None, data=data, loop=None, train="shrunk_parts:own_loop")
    report, _ = shop.run()
    assert [moment.event for moment in report.history if moment.event == "shrink"] == ["shrink"]
    assert {moment.step for moment in report.history if moment.event == "shrink"} == {3}


def test_what_training_ends_before_its_period_is_shrunk_at_the_end(shop):
    stages = [{"until": 100, "shrink": True, "pruning": GROWING}]
    shop.write(recipe={"stages": stages}, teacher=None)
    report, _ = shop.run()
    assert report.shrinks[0].parameters == (DENSE, SMALL)
    assert report.history[-1].step == 9


def test_a_job_without_example_is_refused_before_anything_runs(shop):
    shop.write(data={"train": "shrunk_parts:epoch"})
    with pytest.raises(tersely.ConfigError) as caught:
        shop.run()
    (problem,) = caught.value.problems
    assert problem.path == "recipe.stages[0].shrink"
    assert "the job has none" in problem.message


def test_a_loop_that_ends_before_the_sparsity_is_reached_is_refused(shop):
    growing = {**GROWING, "schedule": {"name": "agp", "times": 30}, "shrink": True}
    recipe = {"pruning": growing}
    shop.write(recipe=recipe, teacher=None, data={**JOB["data"], "train": "shrunk_parts:listed"})
    with pytest.raises(tersely.ConfigError, match="ends with shrink, masks more until step 30"):
        shop.run()


MASKED = {
    "recipe": {"pruning": PRUNING},
    "teacher": None,
    "loop": None,
    "data": {"example": "shrunk_parts:example"},
}


def shrink(shop, *options):
    return CliRunner().invoke(cli, ["shrink", str(shop.output), *options])


def test_a_finished_run_is_shrunk_from_the_command_line(shop):
    shop.write(**MASKED)
    shop.run()
    done = shrink(shop)
    assert done.exit_code == 0, done.output
    assert f"parameters {DENSE} -> {SMALL}" in done.output
    inputs = torch.randn(2, 3, 8, 8)
    small = tersely.load_shrunk(shop.build(), shop.output / "shrunk").eval()
    assert small[0].out_channels == 4
    torch.testing.assert_close(small(inputs), tersely.load_run(shop.output)(inputs))


def test_shrinking_a_run_again_replaces_the_small_model(shop, tmp_path):
    shop.write(**MASKED)
    shop.run()
    place = tmp_path / "small"
    shrink(shop, "--output", str(place), "--round-to", "3")
    assert load_file(place / "model.safetensors")["0.weight"].shape == (6, 3, 3, 3)
    shrink(shop, "--output", str(place))
    assert load_file(place / "model.safetensors")["0.weight"].shape == (4, 3, 3, 3)


def test_an_example_may_be_named_for_a_run_that_has_none(shop):
    shop.write(**{**MASKED, "data": None})
    shop.run()
    refused = shrink(shop)
    assert isinstance(refused.exception, tersely.ConfigError)
    assert "neither data.example nor data.calibration" in str(refused.exception)
    assert shrink(shop, "--example", "shrunk_parts:example").exit_code == 0


def test_a_folder_of_somebody_else_is_left_alone(shop, tmp_path):
    shop.write(**MASKED)
    shop.run()
    (tmp_path / "mine").mkdir()
    refused = shrink(shop, "--output", str(tmp_path / "mine"))
    assert isinstance(refused.exception, tersely.SessionFileError)
    assert "name another folder with --output" in str(refused.exception)


def test_a_run_without_whole_rows_masked_says_what_to_ask_for(shop):
    shop.write(**{**MASKED, "recipe": {"pruning": {**PRUNING, "algorithm": "level"}}})
    shop.run()
    refused = shrink(shop)
    assert isinstance(refused.exception, tersely.SessionError)
    assert "use granularity: out_channel" in str(refused.exception)


def test_a_run_of_which_nothing_can_go_says_why(shop):
    last = {**PRUNING, "config_list": [{"op_names": ["4"], "sparse_ratio": 0.5}]}
    shop.write(**{**MASKED, "recipe": {"pruning": last}})
    shop.run()
    refused = shrink(shop)
    assert isinstance(refused.exception, tersely.SessionError)
    assert "it is an output of the model" in str(refused.exception)
    assert not (shop.output / "shrunk").exists()


def test_a_folder_without_a_finished_run_cannot_be_shrunk(tmp_path):
    refused = CliRunner().invoke(cli, ["shrink", str(tmp_path)])
    assert isinstance(refused.exception, tersely.SessionFileError)
    assert "give the output folder of a finished `tersely run`" in str(refused.exception)
