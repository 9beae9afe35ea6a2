"""Transformers: a callback that runs a session, and a Trainer that computes its loss."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from transformers import (
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, get_last_checkpoint

import tersely
from tersely_integrations.running import (
    Calibration,
    Mask,
    Prepare,
    RunningSession,
    Source,
    compress,
)


class TerselyCallback(TrainerCallback):
    """Runs a session in ``Trainer.train``, and saves it in the folder of every checkpoint.

    Attributes:
        resumed: the checkpoint from which training continues, if the Trainer has the mixin.
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
        """Take a session, or a recipe to attach when training starts.

        Args:
            source: a session of the Trainer's model or of a part of it; or a recipe, its data or
                file, or a plan, for the model.
            teacher: the teacher, if ``source`` is not a session.
            prepare: called once with a session that was attached here and not resumed; None for
                algorithms that compress after training.
            calibration: returns the batches to calibrate with; called before ``prepare``, and again
                if a resumed session has stages that have not begun.
            mask: which positions of a calibration batch are data, if its ``attention_mask`` does
                not tell; see `tersely.Session.calibrate`.
            finalize: whether to finalize the session when training ends.
        """
        self._running = RunningSession(
            source, teacher=teacher, prepare=prepare, calibration=calibration, mask=mask
        )
        self._finalize = finalize
        self.resumed: str | None = None

    @property
    def session(self) -> tersely.Session:
        """The session; resuming and loading the best checkpoint replace it."""
        return self._running.session

    def total_loss(self, task_loss: Tensor, *args: Any, batch: Any = None, **kwargs: Any) -> Tensor:
        """Return the task loss and the session's.

        Args:
            task_loss: 0-dim.
            *args: the teacher's positional arguments; without any arguments, the teacher does not
                run.
            batch: the batch, for losses that need its labels or the indices of its samples.
            **kwargs: the teacher's keyword arguments.
        """
        return self._running.total_loss(task_loss, *args, batch=batch, **kwargs)

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        *,
        model: nn.Module,
        **kwargs: object,
    ) -> None:
        """Attach the recipe, or continue with the session of a resumed checkpoint."""
        self._running.attach(model)
        if state.global_step:
            self._running.load(self.resumed or _checkpoint(args, state))
        else:
            self._running.prepare()

    def on_optimizer_step(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        *,
        optimizer: object = None,
        **kwargs: object,
    ) -> None:
        """Step before gradients are cleared, unless a loss scaler skipped the optimizer's step."""
        self._running.step(is_skipped=bool(getattr(optimizer, "step_was_skipped", False)))

    def on_save(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: object,
    ) -> None:
        """Save the session next to the saved model."""
        if args.should_save:
            self._running.save(_checkpoint(args, state))

    def on_train_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: object,
    ) -> None:
        """Load the session of the best checkpoint if the Trainer does, and finalize on request."""
        if args.load_best_model_at_end and state.best_model_checkpoint is not None:
            self._running.load(state.best_model_checkpoint)
        if self._finalize:
            self._running.finalize()


class TerselyTrainerMixin:
    """Adds the session's loss; must come before Trainer among the bases.

    Without a `TerselyCallback` among the callbacks, the Trainer is unchanged.
    """

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """Return the loss of a batch, in training with the session's.

        Args:
            model: the model, wrapped or not.
            inputs: the batch.
            return_outputs: whether to return the outputs too.
            num_items_in_batch: the number of items by which the loss is divided.
        """
        callback = self._tersely_callback()
        teacher_inputs, batch = self.teacher_inputs(inputs), dict(inputs)
        loss, outputs = super().compute_loss(  # type: ignore[misc]  # the Trainer's
            model, inputs, return_outputs=True, num_items_in_batch=num_items_in_batch
        )
        if callback is not None and model.training:
            # A loss that is divided by the items of all accumulated batches is not divided by their
            # number again, but the session's loss is a mean of one batch and must be.
            share = self._accumulated_share(num_items_in_batch)
            loss = callback.total_loss(loss / share, batch=batch, **teacher_inputs) * share
        return (loss, outputs) if return_outputs else loss

    def teacher_inputs(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Return the teacher's keyword arguments: those of the model, without the labels.

        Args:
            inputs: the batch.
        """
        labels = set(self.label_names) | {"labels"}  # type: ignore[attr-defined]  # the Trainer's
        return {name: value for name, value in inputs.items() if name not in labels}

    def train(
        self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any
    ) -> Any:
        """Train, and tell the callback which checkpoint is resumed.

        Args:
            resume_from_checkpoint: a checkpoint, or True for the last one.
            *args: the Trainer's.
            **kwargs: the Trainer's.
        """
        callback = self._tersely_callback()
        if callback is not None:
            if resume_from_checkpoint is True:
                folder: str = self.args.output_dir  # type: ignore[attr-defined]  # the Trainer's
                callback.resumed = get_last_checkpoint(folder)
            else:
                callback.resumed = resume_from_checkpoint or None
        return super().train(resume_from_checkpoint, *args, **kwargs)  # type: ignore[misc]

    def _accumulated_share(self, num_items_in_batch: Tensor | int | None) -> float:
        is_scaled = getattr(self, "loss_is_scaled_for_ga", None)
        if is_scaled is None:
            is_scaled = self.compute_loss_func is not None or (  # type: ignore[attr-defined]
                self.model_accepts_loss_kwargs  # type: ignore[attr-defined]
                and num_items_in_batch is not None
            )
        batches: int = self.current_gradient_accumulation_steps  # type: ignore[attr-defined]
        return 1 / batches if is_scaled else 1.0

    def _tersely_callback(self) -> TerselyCallback | None:
        callbacks = self.callback_handler.callbacks  # type: ignore[attr-defined]  # the Trainer's
        return next((one for one in callbacks if isinstance(one, TerselyCallback)), None)


class TerselyTrainer(TerselyTrainerMixin, Trainer):
    """A Trainer with the mixin."""


def _checkpoint(args: TrainingArguments, state: TrainerState) -> Path:
    return Path(args.output_dir) / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"
