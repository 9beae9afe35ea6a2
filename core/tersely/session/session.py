"""Session: the one mutable object, from an instrumented model to a finished one."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from tersely.arithmetic.qparams import QParams
from tersely.calibration.calibrate import calibrate
from tersely.distillation.engine import Distillation, need_teacher
from tersely.engine.batches import Forward
from tersely.engine.binding import Handle, bind, first_device
from tersely.engine.by_target import by_target
from tersely.engine.instrumenting import wire
from tersely.instrument.attaching import attach_instruments, detach_instruments
from tersely.instrument.fused import keep_fused_layers_off
from tersely.json_value import Json
from tersely.planning.plan import Plan
from tersely.pruning.engine import Pruning
from tersely.pruning.mask_buffers import masked_share, total_sparsity
from tersely.pruning.starting import task_loss_weight
from tersely.pruning.undoing import beginning
from tersely.quantization.engine import Quantization
from tersely.quantization.folds import folds_of, with_folds
from tersely.quantization.integers import IntegerTensor
from tersely.quantization.order import need_scales, need_scales_to_step
from tersely.registry.registry import registry
from tersely.reporting.misses import warn_of_misses
from tersely.reporting.report import Report, build_report
from tersely.session.baking import bake, keep_activations, warn_of_staying
from tersely.session.editable import EditableMasks
from tersely.session.order import State, need_attached, need_values
from tersely.session.periods import (
    need_all_begun,
    need_batches,
    need_begun_to_hand_over,
    release_batches,
)
from tersely.session.shown import Shown
from tersely.session.taught import Taught
from tersely.storage.session_state import restore_state, save, session_state
from tersely.storage.teacher_cache import TeacherCache


class Session(EditableMasks, Taught, Shown):
    """An instrumented model: calibrate, compress, step, save, and finalize or detach.

    Make one with `tersely.attach`, `tersely.prune` or `tersely.load_session`.

    Attributes:
        model: the user's model, instrumented in place until `finalize` or `detach`.
        plan: the frozen plan.
        teacher: the teacher of distillation stages, or None.
        history: one mapping for each change of masks: step, event and total sparsity.
        metrics: name -> value; filled by jobs and shown in the report.
        steps: how often `step` was called.
    """

    def __init__(self, model: nn.Module, plan: Plan, *, teacher: nn.Module | None = None) -> None:
        self.model = model
        self.plan = plan
        self.teacher = teacher
        self.history: list[dict[str, Json]] = []
        self.metrics: dict[str, float] = {}
        self.steps = 0
        self._state: State = "attached"
        self._teacher_cache: TeacherCache | None = None
        self._baked: dict[Handle, Tensor] = {}
        self._baked_qparams: list[tuple[Handle, QParams]] = []
        self._baked_integers: list[tuple[Handle, IntegerTensor]] = []
        binding = bind(plan, model)
        self._pruning = Pruning(plan, model, binding)
        self._quantization = Quantization(binding, model)
        need_teacher(plan.targets, teacher, model)
        self._distillation = Distillation(binding, teacher)
        self._attachments = attach_instruments(with_folds(wire(binding), binding), binding.name_of)
        try:
            keep_fused_layers_off(binding.owners.universe.modules, self._attachments)
            self._pruning.start()
            self._quantization.start()
            self._distillation.start()
        except BaseException:
            self.detach()
            raise

    def __repr__(self) -> str:
        return f"<tersely.Session {self._state}: {len(self.plan)} targets, step {self.steps}>"

    @property
    def is_compressed(self) -> bool:
        """Whether `compress` was called and the masks of all stages that have begun are there."""
        has_masks = self._pruning.is_compressed and self._pruning.is_masked()
        return has_masks and (self._quantization.is_compressed or not self._quantization.runs)

    def calibrate(self, batches: Iterable[Any], *, forward: Forward | None = None) -> None:
        """Run the model under no_grad in eval mode and let algorithms observe.

        Args:
            batches: what to run; read once.
            forward: called as forward(model, batch). By default a tensor is the only argument, a
                tuple or list the positional arguments, a mapping the keyword arguments.

        Raises:
            CalibrationError: there was no batch, or a target that needs calibration was not seen
                or had values that are not finite; what was observed before is kept.
            SessionError: the session is finished.
        """
        need_attached(self._state, "calibrate")
        calibrate(self.model, self._pruning, self._quantization, batches, forward)

    def compress(self) -> None:
        """Compute masks, then scales and zero points, and put them in force.

        All of one method or, after an error, none: masks stay when scales cannot be chosen.

        With a schedule this is the state before its first update; `step` goes on from there, and
        lets stages begin whose period comes later.

        Raises:
            SessionError: something must be called first, and the text says what.
            CalibrationError: importances are not finite.
            PlanError: the tensors do not fit the plan after all.
        """
        need_attached(self._state, "compress")
        need_batches(self._pruning, self._quantization, self.steps, "compress")
        was_compressed = self._pruning.is_compressed
        self._pruning.compress(self.steps)
        if self._pruning.runs and not was_compressed:
            self._quantization.is_outdated = True
        self._quantization.compress()
        warn_of_misses(self, self._record("compress"))

    def step(self) -> None:
        """Advance the clock by one optimizer step; call it after ``optimizer.step()``.

        Raises:
            SessionError: `compress` was not called, or the session is finished.
            CalibrationError: importances or ranges are not finite; neither clock nor masks have
                moved.
        """
        need_attached(self._state, "step")
        self._pruning.need_masks_to_step()
        need_scales_to_step(self._quantization)
        need_batches(self._pruning, self._quantization, self.steps, "step")
        steps = self.steps + 1
        with beginning(self._pruning, steps) as is_beginning:
            has_new_masks = self._pruning.step(steps)
            self._quantization.step(steps)
        self._distillation.step()
        self.steps = steps
        if is_beginning:
            release_batches(self._pruning, self._quantization)
        if has_new_masks or is_beginning:
            self._record("begin" if is_beginning else "step")

    def loss(self) -> Tensor:
        """Return the distillation and regularisation loss since the last call.

        Returns:
            0-dim, float32, on the model's device; zero when no stage adds a loss.

        Raises:
            SessionError: a target of the student or the teacher was not seen since the last call,
                or the two do not go together.
        """
        need_attached(self._state, "loss")
        zero = torch.zeros((), device=first_device(self.model))
        # First of the two: it empties the taps, also when the other one fails.
        distilled = self._distillation.loss(self.steps)
        return sum([*self._pruning.penalty(self.steps), *distilled], start=zero)

    def total_loss(self, task_loss: Tensor) -> Tensor:
        """Return ``task_loss_weight * task_loss + session.loss()``.

        Args:
            task_loss: 0-dim, the user's own loss.
        """
        return task_loss * task_loss_weight(self.plan, self.steps) + self.loss()

    def parameters(self) -> Iterator[Tensor]:
        """Return what algorithms learn besides the model's parameters, for an optimizer.

        From this call on the session no longer moves them itself: give them to your optimizer.
        """
        need_attached(self._state, "parameters")
        need_begun_to_hand_over(self._pruning, self._quantization, self._distillation, self.steps)
        return iter(
            [
                *self._distillation.hand_over(),
                *self._pruning.hand_over(),
                *self._quantization.hand_over(),
            ]
        )

    def report(self) -> Report:
        """Return what the session did, as data that prints and writes HTML."""
        need_values(self._state, "report")
        return build_report(self)

    def save(self, directory: str | os.PathLike[str]) -> None:
        """Save the session, so that `tersely.load_session` goes on bit for bit.

        The model's weights are not in it: save them with your checkpoint.

        Args:
            directory: a folder; a session saved there before is replaced atomically.

        Raises:
            SessionFileError: the folder cannot be written; what was there is untouched.
        """
        need_attached(self._state, "save")
        save(self, directory)

    def finalize(self) -> nn.Module:
        """Bake masks into the parameters and give the model back as plain modules.

        The Parameter objects stay the same. An input or output mask cannot be baked into a
        plain module; such a module stays instrumented for it, with one warning.

        Returns:
            The model.

        Raises:
            SessionError: nothing is in force yet, or the session is finished.
        """
        need_attached(self._state, "finalize")
        need_all_begun(self.plan.recipe.stages, self.steps, "finalize")
        self._pruning.need_masks(
            "finalize() found nothing in force; call session.compress() first, or "
            "session.detach() to get the dense model back"
        )
        need_scales(self._quantization, "finalize")
        self._baked = dict(self._kept("finalize"))
        self._baked_qparams = self._quantization.qparams()
        self._baked_integers = self._quantization.integers()
        handles = (*self._pruning.handles, *self._quantization.handles)
        folds = {layer: fold for _, layer, fold in folds_of(self._quantization.binding)}
        bake(handles, self.model, folds)
        staying = keep_activations(handles)
        self._pruning.stop()
        self._distillation.stop()
        detach_instruments(self._attachments, keep=staying)
        self._state = "finalized"
        warn_of_staying(staying)
        registry().observe("tersely_finalized", session=self)
        return self.model

    def detach(self) -> nn.Module:
        """Remove everything tersely added and give the dense model back, bit for bit.

        Returns:
            The model.

        Raises:
            SessionError: the session was finalized, so the dense weights are gone.
        """
        if self._state == "detached":
            return self.model
        need_attached(self._state, "detach")
        self._pruning.stop()
        self._distillation.stop()
        detach_instruments(self._attachments)
        self._quantization.give_back()
        self._pruning.give_back()
        self._state = "detached"
        return self.model

    def state(self) -> tuple[dict[str, Tensor], dict[str, Json]]:
        """Return everything that `restore` needs: tensors and JSON data."""
        need_attached(self._state, "state")
        return session_state(self)

    def restore(self, tensors: Mapping[str, Tensor], data: Mapping[str, Json]) -> None:
        """Continue from a state that `state` returned.

        Args:
            tensors: its tensors.
            data: its JSON data.

        Raises:
            SessionFileError: the state belongs to another plan or model.
        """
        need_attached(self._state, "restore")
        restore_state(self, tensors, data)

    def _record(self, event: str) -> dict[str, dict[str, float]]:
        shares = [(handle, masked_share(handle, mask)) for handle, mask in self._masks(event)]
        self.history.append(
            {"step": self.steps, "event": event, "sparsity": total_sparsity(shares)}
        )
        sparsity = by_target((handle.plan, share) for handle, share in shares)
        registry().observe("tersely_masks_updated", session=self, sparsity=sparsity)
        return sparsity
