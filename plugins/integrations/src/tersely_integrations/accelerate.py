"""Accelerate: a session in your own loop with an Accelerator."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from accelerate import Accelerator
from torch import Tensor, nn

import tersely
from tersely_integrations.running import (
    Calibration,
    Mask,
    Prepare,
    RunningSession,
    Source,
    compress,
)


class Compression:
    """A session with an Accelerator: its loss, its steps, and its part of saved states."""

    def __init__(
        self,
        accelerator: Accelerator,
        source: Source,
        *,
        model: nn.Module | None = None,
        teacher: nn.Module | None = None,
        prepare: Prepare | None = compress,
        calibration: Calibration | None = None,
        mask: Mask | None = None,
        restore: bool = True,
    ) -> None:
        """Take a session, or a recipe to attach now; before or after ``accelerator.prepare``.

        Args:
            accelerator: the loop's accelerator; ``save_state`` and ``load_state`` then include the
                session.
            source: a session, or a recipe, its data or file, or a plan.
            model: the model to attach to, wrapped or not, if ``source`` is not a session.
            teacher: the teacher, if ``source`` is not a session.
            prepare: called with a session that was attached here; None for algorithms that
                compress after training.
            calibration: returns the batches to calibrate with; called before ``prepare``, and again
                if a restored session has stages that have not begun.
            mask: which positions of a calibration batch are data, if its ``attention_mask`` does
                not tell; see `tersely.Session.calibrate`.
            restore: whether ``load_state`` restores the session; False if you have loaded it
                yourself.
        """
        self._accelerator = accelerator
        self._running = RunningSession(
            source, teacher=teacher, prepare=prepare, calibration=calibration, mask=mask
        )
        if not isinstance(source, tersely.Session):
            if model is None:
                raise ValueError("a recipe needs a model to attach to; give model=...")
            self._running.attach(accelerator.unwrap_model(model))
            self._running.prepare()
        self._is_handed_over = False
        accelerator.register_save_state_pre_hook(self._save)
        if restore:
            accelerator.register_load_state_pre_hook(self._load)

    @property
    def session(self) -> tersely.Session:
        """The session; ``load_state`` replaces it."""
        return self._running.session

    def total_loss(self, task_loss: Tensor, *args: Any, batch: Any = None, **kwargs: Any) -> Tensor:
        """Return the loss for ``accelerator.backward``: the task loss and the session's.

        Args:
            task_loss: 0-dim, your own loss.
            *args: the teacher's positional arguments; without any arguments, the teacher does not
                run.
            batch: the batch, for losses that need its labels or the indices of its samples.
            **kwargs: the teacher's keyword arguments.
        """
        return self._running.total_loss(task_loss, *args, batch=batch, **kwargs)

    def step(self) -> None:
        """Follow the optimizer; call it between ``optimizer.step`` and ``optimizer.zero_grad``.

        Nothing happens while gradients accumulate, and when a loss scaler skipped the step.
        """
        if self._accelerator.sync_gradients:
            self._running.step(is_skipped=self._accelerator.optimizer_step_was_skipped)

    def parameters(self) -> Iterator[Tensor]:
        """Return the learned tensors, for your optimizer; see `tersely.Session.parameters`."""
        self._is_handed_over = True
        return self.session.parameters()

    def finalize(self) -> nn.Module:
        """Finalize the session and return the model; see `tersely.Session.finalize`."""
        return self._running.finalize()

    def _save(self, models: object, weights: object, folder: str) -> None:
        if self._accelerator.is_main_process and self._running.is_attached:
            self._running.save(folder)

    def _load(self, models: object, folder: str) -> None:
        if self._is_handed_over:
            raise tersely.SessionError(
                "load_state() replaces the session, and your optimizer has tensors of the current "
                "one; begin with tersely.load_session(model, checkpoint / 'tersely'), take "
                "its parameters, and give it with restore=False"
            )
        self._running.load(folder)
