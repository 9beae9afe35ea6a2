"""What the integrations share: a session that starts, steps and resumes with a training loop."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from torch import Tensor, nn

import tersely

Source: TypeAlias = (
    tersely.Session | tersely.Plan | tersely.Recipe | Mapping[str, Any] | str | os.PathLike[str]
)
"""A session, or a source from which `tersely.attach` makes one."""

Prepare: TypeAlias = Callable[[tersely.Session], object]
"""A function that prepares a new session for training."""

Calibration: TypeAlias = Callable[[], Iterable[Any]]
Mask: TypeAlias = str | Callable[[Any], Tensor | None]
"""A function that returns the batches for `tersely.Session.calibrate`."""

FOLDER = "tersely"
"""The name of the saved session in a framework's checkpoint folder."""


def compress(session: tersely.Session) -> None:
    """Compress at once; with a schedule, this is the state before its first update.

    Args:
        session: a session that was just attached.
    """
    session.compress()


class RunningSession:
    """A session in a training loop; mutable, since it starts late and may be replaced.

    Attributes:
        is_prepared: whether the session is ready for the first step.
    """

    def __init__(
        self,
        source: Source,
        *,
        teacher: nn.Module | None = None,
        prepare: Prepare | None = compress,
        calibration: Calibration | None = None,
        mask: Mask | None = None,
    ) -> None:
        if isinstance(source, tersely.Session) and teacher is not None:
            raise ValueError(
                "the session already has its teacher; give the teacher to tersely.attach(), or a "
                "recipe instead of the session"
            )
        is_session = isinstance(source, tersely.Session)
        self.is_prepared = is_session
        self._session = source if isinstance(source, tersely.Session) else None
        self._source = source
        self._teacher = source.teacher if isinstance(source, tersely.Session) else teacher
        self._prepare = prepare
        self._calibration = calibration
        self._mask = mask
        self._is_finalized = False
        # A caller with a session may have used its total_loss; one with a recipe has not.
        self._needs_loss = not is_session
        self._has_loss = False

    @property
    def session(self) -> tersely.Session:
        """The session.

        Raises:
            SessionError: training has not started, so the recipe is not attached yet.
        """
        if self._session is None:
            raise tersely.SessionError(
                "there is no session yet: the recipe is attached when training starts; to have it "
                "before, call tersely.attach(model, recipe) and give the session instead"
            )
        return self._session

    @property
    def is_attached(self) -> bool:
        """Whether there is a session that can be stepped and saved."""
        return self._session is not None and not self._is_finalized

    def attach(self, model: nn.Module) -> None:
        """Attach the recipe, unless there is a session.

        Args:
            model: the user's model, not what a framework wraps around it.
        """
        if self._session is None:
            assert not isinstance(self._source, tersely.Session)
            self._session = tersely.attach(model, self._source, teacher=self._teacher)

    def prepare(self) -> None:
        """Prepare a session that was attached here for training; an error detaches it."""
        if self.is_prepared:
            return
        try:
            if self._calibration is not None:
                self.session.calibrate(self._calibration(), mask=self._mask)
            if self._prepare is not None:
                self._prepare(self.session)
        except BaseException:
            self.session.detach()
            self._session = None
            raise
        self.is_prepared = True

    def total_loss(self, task_loss: Tensor, *args: Any, batch: Any = None, **kwargs: Any) -> Tensor:
        """Return the loss to call backward on.

        Args:
            task_loss: 0-dim, the user's own loss.
            *args: the teacher's positional arguments.
            batch: the batch, for losses that ask for its labels or the indices of its samples.
            **kwargs: its keyword arguments. Without any arguments the teacher does not run: the
                caller has run it.
        """
        self._has_loss = True
        has_teacher = self.session.teacher is not None and self.session.needs_teacher
        if has_teacher and (args or kwargs):
            self.session.teacher_forward(*args, **kwargs)
        return self.session.total_loss(task_loss, batch=batch)

    def step(self, *, is_skipped: bool = False) -> None:
        """Follow one optimizer step.

        Args:
            is_skipped: whether the optimizer did not step because a loss scaler overflowed.

        Raises:
            SessionError: the recipe distils, and its loss was not used.
        """
        if is_skipped:
            # Learned tensors have gradients of their own, which must not accumulate into the next
            # step.
            for tensor in self.session.model.buffers():
                if tensor.requires_grad:
                    tensor.grad = None
            return
        stages = self.session.plan.recipe.stages
        is_distilling = any(stage.method == "distillation" for stage in stages)
        if is_distilling and self._needs_loss and not self._has_loss:
            raise tersely.SessionError(
                "the recipe distils, but its loss is not part of what is trained: in Lightning "
                "return total_loss(self, loss, inputs) from training_step, in Transformers use "
                "TerselyTrainer, with Accelerate call compression.total_loss(loss, inputs)"
            )
        self.session.step()

    def save(self, checkpoint: str | os.PathLike[str]) -> None:
        """Save the session into a framework's checkpoint folder.

        Args:
            checkpoint: the framework's folder.
        """
        self.session.save(Path(checkpoint) / FOLDER)

    def load(self, checkpoint: str | os.PathLike[str]) -> None:
        """Continue with the session of a framework's checkpoint folder.

        Args:
            checkpoint: the framework's folder.

        Raises:
            SessionFileError: there is no session, it does not fit the model, or it was saved with
                another recipe.
        """
        before = self.session
        planned = before.plan.to_dict()
        before.detach()
        folder = Path(checkpoint) / FOLDER
        self._session = tersely.load_session(before.model, folder, teacher=self._teacher)
        if json.dumps(self.session.plan.to_dict()) != json.dumps(planned):
            self.session.detach()
            raise tersely.SessionFileError(
                f"{folder} was saved with another recipe than the one that is given now; train on "
                f"with that one, or give tersely.load_session(model, {os.fspath(folder)!r}) "
                "instead of a recipe and do not resume",
                path=folder,
            )
        self._go_on()

    def state(self) -> dict[str, Any]:
        """Return the session's state for a checkpoint in one file; empty without a session."""
        if not self.is_attached:
            return {}
        tensors, data = self.session.state()
        return {"tensors": tensors, "data": data}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from a result of `state`.

        Args:
            state: the state.

        Raises:
            SessionFileError: the state belongs to another recipe or model.
        """
        before = self.session
        # A trained session holds more than a state does, so a new one is made.
        before.detach()
        self._session = tersely.attach(before.model, before.plan, teacher=self._teacher)
        self.session.restore(state["tensors"], state["data"])
        self._go_on()

    def _go_on(self) -> None:
        # Batches are not saved, and stages that have not begun may need them.
        if self.session.waiting and self._calibration is not None:
            self.session.calibrate(self._calibration(), mask=self._mask)
        self.is_prepared = True

    def finalize(self) -> nn.Module:
        """Bake the result in and return the model; see `tersely.Session.finalize`."""
        model = self.session.finalize()
        self._is_finalized = True
        return model
