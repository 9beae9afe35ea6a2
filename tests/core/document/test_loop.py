"""The built-in loop in a job: its defaults, what must stand beside it, and how mistakes read."""

import pytest
from messages import did_you_mean, found, misplaced_key, unknown_key

from tersely.document.job import Loop
from tersely.document.load import load_job
from tersely.errors import ConfigError

JOB = """\
model: parts:build
output: out
recipe:
  pruning: {algorithm: level, config_list: [{op_types: [Linear], sparse_ratio: 0.5}]}
"""
BATCHES = "data: {train: parts:batches}\n"


@pytest.fixture
def job_problems(lines):
    """The problems of a job with some more lines."""
    return lambda text: lines(JOB + text, "job")


@pytest.fixture
def divided(lines):
    """The problems of a job with a recipe of periods and some more lines."""
    head = "model: parts:build\noutput: out\nteacher: parts:teach\n"
    return lambda periods, text, beside="": lines(
        f"{head}{text}recipe: {{stages: [{periods}]{beside}}}\n", "job"
    )


PRUNE = "pruning: {algorithm: level, config_list: [{op_types: [Linear], sparse_ratio: 0.5}]}"
QUANTIZE = "quantization: {algorithm: qat, config_list: [{op_types: [Linear]}]}"
DISTIL = "distillation: {config_list: [{op_types: [Linear]}]}"
NO_TASK = BATCHES + "loop: {epochs: 3, lr: 1, loss: none}\n"


def test_a_period_that_begins_while_training_needs_training(divided):
    first = f"{{{PRUNE}, until: 5}}"
    found = divided(f"{first}, {{{QUANTIZE}}}", "")
    assert len(found) == 1
    assert (
        "recipe.stages[1]: the second period begins during training, but the job has neither "
        "'train' nor 'loop' (write loop: "
    ) in found[0]
    assert divided(f"{first}, {{{QUANTIZE}}}", "train: parts:train\n") == []
    assert divided(f"{{{PRUNE}}}", "") == []


def test_no_task_needs_distillation_in_every_period(divided):
    first, last = f"{{{PRUNE}, {DISTIL}, until: 5}}", f"{{{QUANTIZE}}}"
    found = divided(f"{first}, {last}", NO_TASK)
    assert len(found) == 1
    assert found[0].endswith(
        "loop.loss: 'none' trains only on losses that the session adds, but the recipe has a "
        "period without distillation (name a loss such as cross_entropy, or add a distillation "
        "stage outside of 'stages')"
    )
    assert divided(f"{first}, {{{QUANTIZE}, {DISTIL}}}", NO_TASK) == []
    assert divided(f"{{{PRUNE}}}", NO_TASK, f", {DISTIL}") == []


@pytest.fixture
def loop(tmp_path):
    """The loop of a job, read from a file."""

    def read(text):
        (tmp_path / "job.yaml").write_text(JOB + BATCHES + text)
        return load_job(tmp_path / "job.yaml").loop

    return read


def test_what_is_left_out_has_its_default(loop):
    assert loop("loop: {epochs: 3, lr: 1, loss: mse}\n") == Loop(
        epochs=3,
        lr=1.0,
        loss="mse",
        optimizer="adamw",
        optimizer_options={},
        lr_schedule="constant",
        clip_norm=None,
    )


def test_an_optimizer_may_have_options(loop):
    read = loop(
        "loop: {epochs: 2.0, lr: 1e-3, loss: 'parts:loss', optimizer: {sgd: {momentum: 0.9}}, "
        "lr_schedule: cosine, clip_norm: 1}\n"
    )

    assert read == Loop(
        epochs=2,
        lr=0.001,
        loss="parts:loss",
        optimizer="sgd",
        optimizer_options={"momentum": 0.9},
        lr_schedule="cosine",
        clip_norm=1.0,
    )
    assert isinstance(read.epochs, int)


def test_null_is_as_no_loop(loop):
    with pytest.raises(ConfigError, match="gives its batches to 'loop', and the job has none"):
        loop("loop: null\n")


def test_the_batches_belong_to_the_loop(job_problems):
    loop = "loop: {epochs: 1, lr: 0.1, loss: mse}\n"

    assert job_problems(BATCHES + loop) == []
    assert job_problems(loop) == [
        "5:1: loop: 'loop' trains on the batches of data.train, and the job has none (write data: "
        "{train: 'module:callable'}; it returns the batches of one epoch)"
    ]
    assert job_problems(BATCHES) == [
        "5:8: data.train: 'train' gives its batches to 'loop', and the job has none (write loop: "
        "{epochs: ..., lr: ..., loss: ...})"
    ]
    assert job_problems(BATCHES + "train: parts:finetune\n") == [
        "5:8: data.train: 'train' gives its batches to 'loop', and the job has none (your own loop "
        "in 'train' gets its batches by itself: remove data.train)"
    ]
    assert job_problems(BATCHES + loop + "train: parts:finetune\n") == [
        "7:1: train: "
        + found("'train' together with 'loop'", "only one of them", "remove 'train' or 'loop'")
    ]


def test_every_mistake_of_a_loop_is_told_at_its_place(job_problems):
    text = """\
loop:
  epochs: 0
  lr: '0.1'
  loss: cross_entrpy
  optimizer: {sgd: {momentun: 0.9}}
  schedule: cosine
  seed: 1
"""
    losses = "cross_entropy, mse, l1, smooth_l1, bce_with_logits, nll, output, none"

    assert job_problems(BATCHES + text) == [
        "7:11: loop.epochs: " + found("0", "an integer of at least 1"),
        "8:7: loop.lr: " + found("'0.1'", "a number above 0", "write 0.1 without quotes"),
        f"9:9: loop.loss: found 'cross_entrpy', expected {losses} or a string such as "
        "'my_package.losses:loss' (did you mean 'cross_entropy'?)",
        "10:21: loop.optimizer.sgd.momentun: "
        + unknown_key("momentun", "the options of sgd", did_you_mean("momentum")),
        "11:3: loop.schedule: "
        + unknown_key("schedule", "a training loop", did_you_mean("lr_schedule")),
        "12:3: loop.seed: "
        + misplaced_key("seed", "a job", "a training loop", "write it in a job, next to 'recipe'"),
    ]


@pytest.mark.parametrize(
    ("optimizer", "message"),
    [
        (
            "sgdd",
            "loop.optimizer: "
            + found(
                "'sgdd'", "sgd, adam, adamw or {optimizer: {option: value}}", did_you_mean("sgd")
            ),
        ),
        (
            "{sgdd: {}}",
            "loop.optimizer.sgdd: "
            + unknown_key("sgdd", "{optimizer: {option: value}}", did_you_mean("sgd")),
        ),
        (
            "{adam: {betas: [0.9, 1]}}",
            "loop.optimizer.adam.betas[1]: " + found("1", "a number of at least 0 below 1"),
        ),
    ],
)
def test_a_wrong_optimizer(job_problems, optimizer, message):
    (line,) = job_problems(
        BATCHES + f"loop: {{epochs: 1, lr: 0.1, loss: mse, optimizer: {optimizer}}}\n"
    )

    assert line.partition(" ")[2] == message


def test_a_key_of_the_loop_beside_it_is_told_where_it_belongs(job_problems):
    assert job_problems("epochs: 3\n") == [
        "5:1: epochs: "
        + misplaced_key("epochs", "a training loop", "a job", "write it under 'loop'")
    ]
