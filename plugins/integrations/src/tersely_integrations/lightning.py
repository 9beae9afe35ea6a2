"""Lightning: a callback that runs a session, and the loss for a training step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import lightning.pytorch as pl
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

import tersely
from tersely_integrations.running import (
    Calibration,
    Mask,
    Prepare,
    RunningSession,
    Source,
    compress,
)


class TerselyCallback(pl.Callback):
    """Runs a session in ``trainer.fit``; its state is part of every checkpoint.

    The session belongs to the LightningModule itself, never to what a strategy wraps around it.
    """

    def __init__(
        self,
        source: Source,
        *,
        teacher: nn.Module | None = None,
        prepare: Prepare | None = compress,
        calibration: Calibration | None = None,
        mask: Mask | None = None,
        finalize: bool = False,
    ) -> None:
        """Take a session, or a recipe to attach when fitting starts.

        Args:
            source: a session of the module or of a part of it; or a recipe, its data or file, or a
                plan, for the module.
            teacher: the teacher, if ``source`` is not a session.
            prepare: called once with a session that was attached here and not resumed; None for
                algorithms that compress after training.
            calibration: returns the batches to calibrate with; called before ``prepare``, and again
                if a resumed session has stages that have not begun.
            mask: which positions of a calibration batch are data, if its ``attention_mask`` does
                not tell; see `tersely.Session.calibrate`.
            finalize: whether to finalize the session when fitting ends.
        """
        super().__init__()
        self._running = RunningSession(
            source, teacher=teacher, prepare=prepare, calibration=calibration, mask=mask
        )
        self._finalize = finalize
        self._optimizer_steps = 0
        self._scale: float | None = None

    @property
    def session(self) -> tersely.Session:
        """The session; resuming and loading a checkpoint replace it."""
        return self._running.session

    def total_loss(self, task_loss: Tensor, *args: Any, batch: Any = None, **kwargs: Any) -> Tensor:
        """Return the task loss and the session's; see the function of this name.

        Args:
            task_loss: 0-dim.
            *args: the teacher's positional arguments.
            batch: the batch, for losses that need its labels or the indices of its samples.
            **kwargs: the teacher's keyword arguments.
        """
        return self._running.total_loss(task_loss, *args, batch=batch, **kwargs)

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Attach before a checkpoint is loaded, even to test, and before a strategy wraps it.

        Until it is compressed, an attached module computes the same as before.
        """
        self._running.attach(pl_module)

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Compress, unless a checkpoint has masks or scales.

        Raises:
            SessionError: a callback averages weights in an earlier copy.
        """
        self._running.prepare()
        for callback in getattr(trainer, "callbacks", ()):
            for value in vars(callback).values():
                if isinstance(value, AveragedModel):
                    _need_alike(value.module, pl_module, type(callback).__name__)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Note the number of optimizer steps of the checkpoint."""
        self._optimizer_steps = trainer.global_step

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: object
    ) -> None:
        """Note the loss scale, which falls if the next step is skipped."""
        self._scale = _loss_scale(trainer)

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: object,
        batch: object,
        batch_idx: int,
    ) -> None:
        """Step after a batch with an optimizer step; gradients are not cleared yet."""
        if trainer.global_step == self._optimizer_steps:
            return
        self._optimizer_steps = trainer.global_step
        before, after = self._scale, _loss_scale(trainer)
        is_skipped = before is not None and after is not None and after < before
        self._running.step(is_skipped=is_skipped)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Finalize on request."""
        if self._finalize:
            self._running.finalize()

    def state_dict(self) -> dict[str, Any]:
        """Return the session's state, for the checkpoint."""
        return self._running.state()

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Continue from a checkpoint's state."""
        self._running.restore(state_dict)


def total_loss(
    module: pl.LightningModule, task_loss: Tensor, *args: Any, batch: Any = None, **kwargs: Any
) -> Tensor:
    """Return the loss for a training step: the task loss and the session's.

    Args:
        module: the LightningModule, whose trainer may have a `TerselyCallback`.
        task_loss: 0-dim, the module's own loss.
        *args: the teacher's positional arguments; not used without a teacher.
        batch: the batch, for losses that need its labels or the indices of its samples.
        **kwargs: the teacher's keyword arguments.

    Returns:
        0-dim; the task loss alone outside of training and in a trainer without the callback, so
        that the module trains with and without compression.
    """
    callbacks = (one for one in module.trainer.callbacks if isinstance(one, TerselyCallback))
    callback = next(callbacks, None)
    if callback is None or not module.trainer.training:
        return task_loss
    return callback.total_loss(task_loss, *args, batch=batch, **kwargs)


def _need_alike(average: nn.Module, module: nn.Module, name: str) -> None:
    # Averaging pairs entries by their order, so a copy without masks would be averaged with them.
    theirs, ours = (
        [(key, one.shape) for key, one in model.state_dict().items()] for model in (average, module)
    )
    if theirs != ours:
        raise tersely.SessionError(
            f"{name} copied the module before it was compressed, and its copy lacks masks or "
            "scales: call tersely.attach(module, recipe) and session.compress() before "
            "trainer.fit(), and give TerselyCallback the session in place of the recipe"
        )


def _loss_scale(trainer: pl.Trainer) -> float | None:
    scaler = getattr(trainer.precision_plugin, "scaler", None)
    return None if scaler is None else float(scaler.get_scale())
