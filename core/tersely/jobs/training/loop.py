"""The built-in training loop, for jobs whose users have none of their own."""

from __future__ import annotations

import inspect
import math
from collections.abc import Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from tersely.contracts.calling import call_model
from tersely.document.job import Loop
from tersely.errors import ConfigError, Problem, TrainingError
from tersely.jobs.generators import seed_generators
from tersely.jobs.progress.displays import length_of
from tersely.jobs.run import Run
from tersely.jobs.training.epochs import keep_epoch, restore_training
from tersely.jobs.training.losses import TaskLoss, kind_of
from tersely.jobs.training.optimizing import build_optimizer, set_learning_rate
from tersely.log import logger
from tersely.planning.selecting.classes import original_class
from tersely.session.periods import waiting_stages


def train_epochs(run: Run, loop: Loop) -> Run:
    """Train for all epochs that are not done, and keep a checkpoint between them.

    Args:
        run: the run, attached; restored from a checkpoint of this loop when its record has epochs.
        loop: what the job says about it.

    Returns:
        The run, whose record has the newest checkpoint of an epoch.

    Raises:
        ConfigError: what the job's callables give does not fit the loop.
        TrainingError: the loss is not finite.
        SessionFileError: a checkpoint cannot be written, or is damaged.
    """
    parameters = _learning(run)
    optimizer = build_optimizer(loop, parameters)
    training = _Training(run, loop, optimizer, parameters)
    done = run.record.epochs
    if done is not None:
        restore_training(run, optimizer, epochs=done)
    elif run.job.seed is not None:
        seed_generators(run.job.seed)
    else:
        # Nothing else could tell a later run where the generators were.
        run = keep_epoch(run, optimizer, epochs=0)
    for epoch in range(done or 0, loop.epochs):
        training.run_epoch(epoch)
        if epoch + 1 < loop.epochs:
            run = keep_epoch(run, optimizer, epochs=epoch + 1)
    return run


class _Training:
    """One loop under way; mutable because the loss is summed up while the display shows it.

    Args:
        run: the run.
        loop: what the job says about it.
        optimizer: moves the model's parameters.
        parameters: what it moves.
    """

    def __init__(
        self, run: Run, loop: Loop, optimizer: torch.optim.Optimizer, parameters: list[Tensor]
    ) -> None:
        self._run = run
        self._parameters = parameters
        self._loop = loop
        self._optimizer = optimizer
        self._session = run.attached
        self._task = TaskLoss(name=loop.loss, function=run.calls.loss, source=run.job.source)
        self._sum = 0.0
        self._count = 0

    def run_epoch(self, epoch: int) -> None:
        """Train on all batches of an epoch.

        Args:
            epoch: its number, from 0.
        """
        batches = self._batches()
        length = self._steps(batches)
        if length is not None:
            self._need_every_stage(length * (self._loop.epochs - epoch))
        self._sum, self._count = 0.0, 0
        self._run.model.train()
        title = f"epoch {epoch + 1} of {self._loop.epochs}"
        for batch in self._run.display.track(batches, title=title, note=self._mean):
            share = 0.0 if length is None else min(self._count / max(length, 1), 1.0)
            set_learning_rate(self._optimizer, self._loop, (epoch + share) / self._loop.epochs)
            self._count += 1
            self._sum += self._step(batch, f"batch {self._count} of epoch {epoch + 1}")
        if self._count:
            loss = self._sum / self._count
            logger(__name__).info("epoch_finished", epoch=epoch + 1, batches=self._count, loss=loss)
            self._session.note({"loss": loss}, epoch=epoch + 1)
        else:
            raise self._wrong(
                "data.train",
                f"returned no batch for epoch {epoch + 1}",
                "it is called once for each epoch, and must return all batches each time"
                if epoch
                else "return a list, a DataLoader or a generator with at least one batch",
            )

    def _need_every_stage(self, steps: int) -> None:
        end = self._session.steps + steps
        for stage in waiting_stages(self._session.plan.recipe.stages, end):
            raise self._wrong(
                "loop.epochs",
                f"the loop ends at step {end}, and {stage.path} begins at step {stage.begin}",
                "train for more epochs, or end an earlier period sooner by its 'until'",
            )
        for stage in self._session.plan.recipe.stages:
            if stage.shrink and stage.schedule and stage.schedule.end > end:
                raise self._wrong(
                    "loop.epochs",
                    f"the loop ends at step {end}, and {stage.path}, which ends with shrink, masks "
                    f"more until step {stage.schedule.end}",
                    "train for more epochs, or let its schedule end sooner",
                )

    def _step(self, batch: Any, place: str) -> float:
        session = self._session
        inputs, targets = self._task.split(batch)
        self._optimizer.zero_grad()
        output = self._call(inputs)
        if session.needs_teacher:
            call_model(session.teacher_forward, inputs)
        task = self._task.of(output, targets)
        total = session.loss(batch=batch) if task is None else session.total_loss(task, batch=batch)
        value = total.item()
        if not math.isfinite(value):
            raise TrainingError(_not_finite(value, task, place))
        if not total.requires_grad:
            raise self._wrong(
                "loop.loss",
                "the loss does not depend on the parameters of the model",
                "return a tensor that is computed from the output, without .item() or .detach()",
            )
        torch.autograd.backward(total)
        if self._loop.clip_norm is not None:
            nn.utils.clip_grad_norm_(self._parameters, self._loop.clip_norm)
        self._optimizer.step()
        session.step(optimizer=self._optimizer)
        return value

    def _call(self, inputs: Any) -> object:
        model = self._run.model
        try:
            return call_model(model, inputs)
        except TypeError as error:
            taken = inspect.signature(original_class(type(model)).forward)
            try:
                call_model(partial(taken.bind, model), inputs)
            except TypeError as misfit:
                raise self._wrong(
                    "data.train",
                    f"gave the model {kind_of(inputs)}, but its forward takes {taken}: {misfit}",
                    "a list or tuple is spread over its arguments, a mapping over its keywords",
                ) from error
            raise

    def _batches(self) -> Iterable[Any]:
        load = self._run.calls.batches
        batches = None if load is None else load()
        if isinstance(batches, Iterable):
            return batches
        raise self._wrong(
            "data.train", f"returned {kind_of(batches)}, expected an iterable of batches"
        )

    def _steps(self, batches: Iterable[Any]) -> int | None:
        length = length_of(batches)
        if length is None and self._loop.lr_schedule != "constant":
            raise self._wrong(
                "loop.lr_schedule",
                f"{self._loop.lr_schedule} needs to know how many batches an epoch has, and "
                f"data.train returned {kind_of(batches)}, which does not tell",
                "return a list or a DataLoader, or write lr_schedule: constant",
            )
        return length

    def _mean(self) -> str:
        return f"loss {self._sum / self._count:.4f}" if self._count else "no batch"

    def _wrong(self, path: str, message: str, hint: str | None = None) -> ConfigError:
        return ConfigError([Problem(path, message, hint)], source=self._run.job.source)


def _learning(run: Run) -> list[Tensor]:
    found: list[Tensor] = [one for one in run.model.parameters() if one.requires_grad]
    if found:
        return found
    problem = Problem("model", "none of its parameters requires a gradient, so none can be trained")
    raise ConfigError([problem], source=run.job.source)


def _not_finite(value: float, task: Tensor | None, place: str) -> str:
    whose = "" if task is None else f" (the task loss is {task.item()})"
    return (
        f"the loss of {place} is {value}{whose}; lower loop.lr, set loop.clip_norm, or look for "
        "values in the data that are not finite"
    )
