"""A validated job as frozen data: which model, which data, which recipe, and where results go."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import attrs

from tersely.document.recipe import Recipe
from tersely.json_value import Json


@attrs.frozen(kw_only=True)
class Export:
    """One file format that a job writes.

    Attributes:
        format: the exporter's name in the registry.
        options: the exporter's own options.
        dynamic_shapes: ``batch``, or argument -> names of its dimensions, or None.
    """

    format: str
    options: Mapping[str, Json] = attrs.field(factory=dict)
    dynamic_shapes: Json = None


@attrs.frozen(kw_only=True)
class JobData:
    """References to the callables that give a job its data.

    Attributes:
        train: ``module:callable`` returning the batches of one epoch for the loop, or None.
        calibration: ``module:callable`` returning an iterable of batches, or None.
        example: ``module:callable`` returning example inputs of the model, or None for the first
            batch of ``calibration``.
        evaluate: ``module:callable`` taking the model and returning metrics, or None.
        mask: the key of a calibration batch that tells data from padding; None for
            ``attention_mask`` where there is one.
        labels: whether the batches of ``calibration`` have labels, which no model is given.
    """

    train: str | None = None
    calibration: str | None = None
    example: str | None = None
    evaluate: str | None = None
    mask: str | None = None
    labels: bool = False


@attrs.frozen(kw_only=True)
class Loop:
    """The built-in training loop of a job.

    Attributes:
        epochs: the number of passes over the batches of ``data.train``.
        lr: the learning rate at the beginning.
        loss: the name of the task loss, or ``module:callable`` taking output and targets.
        optimizer: the name of PyTorch's optimizer.
        optimizer_options: its further keyword arguments.
        lr_schedule: how the learning rate falls.
        clip_norm: the largest norm of all gradients together, or None.
    """

    epochs: int
    lr: float
    loss: str
    optimizer: str = "adamw"
    optimizer_options: Mapping[str, Json] = attrs.field(factory=dict)
    lr_schedule: Literal["constant", "cosine", "linear"] = "constant"
    clip_norm: float | None = None


@attrs.frozen(kw_only=True)
class ObserverReference:
    """An observer that receives the numbers of a run.

    Attributes:
        create: ``module:callable`` that makes the observer.
        args: its keyword arguments.
    """

    create: str
    args: Mapping[str, Json] = attrs.field(factory=dict)


@attrs.frozen(kw_only=True)
class Measuring:
    """What a job measures at its end, see `tersely.benchmark`.

    Attributes:
        batch_sizes: to how many samples the example inputs are repeated or cut, each in a
            benchmark of its own; empty for as many as they have.
        seconds: how long each benchmark takes.
        threads: how many threads everything computes with, or None for PyTorch's number.
        compile: whether `torch.compile` of both models is measured too.
    """

    batch_sizes: tuple[int, ...] = ()
    seconds: float = 5.0
    threads: int | None = None
    compile: bool = False


@attrs.frozen(kw_only=True)
class Job:
    """A whole job; references are ``module:callable`` strings, not yet imported.

    Attributes:
        model: reference to the callable that builds the model.
        recipe: the recipe, loaded and checked.
        output: the folder the results go to, absolute; relative ones are taken from ``directory``.
        directory: the folder of the job file, absolute; first on ``sys.path`` for references.
        model_args: keyword arguments of ``model``.
        teacher: reference to the callable that builds the teacher, or None.
        teacher_args: keyword arguments of ``teacher``.
        data: references to the data.
        train: reference to the user's loop ``(model, session) -> None``, or None.
        loop: the built-in training loop, or None.
        export: the formats to write.
        benchmark: what to measure, or None.
        observers: what receives the numbers of the run.
        seed: the seed of every generator, or None to leave them alone.
        document: the plain JSON data the job was made from.
        source: the job file, or None.
    """

    model: str
    recipe: Recipe
    output: Path
    directory: Path
    model_args: Mapping[str, Json] = attrs.field(factory=dict)
    teacher: str | None = None
    teacher_args: Mapping[str, Json] = attrs.field(factory=dict)
    data: JobData = attrs.field(factory=JobData)
    train: str | None = None
    loop: Loop | None = None
    export: tuple[Export, ...] = ()
    benchmark: Measuring | None = None
    observers: tuple[ObserverReference, ...] = ()
    seed: int | None = None
    document: Mapping[str, Json] = attrs.field(factory=dict, eq=False, repr=False)
    source: str | None = attrs.field(default=None, eq=False)
