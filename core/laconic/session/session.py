"""Session: the one mutable object, from an instrumented model to a finished one."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from laconic.algorithms import QParams
from laconic.errors import SessionError
from laconic.instrument.attaching import attach_instruments, detach_instruments
from laconic.instrument.fused import keep_fused_layers_off
from laconic.planning.plan import Plan
from laconic.registry.descriptors import Json
from laconic.registry.registry import registry
from laconic.session.baking import bake, keep_activations, warn_of_staying
from laconic.session.by_target import by_target
from laconic.session.engine import Pruning
from laconic.session.handles import Handle, bind, first_device
from laconic.session.mask_state import full_mask, is_kept, mask_of, masked_share, total_sparsity
from laconic.session.observing import Forward, evaluating
from laconic.session.order import State, need_attached, need_values
from laconic.session.report import Report, build_report, warn_of_misses
from laconic.session.resuming import restore_state, save, session_state
from laconic.session.starting import task_loss_weight
from laconic.session.statistic import sample_shape
from laconic.session.wiring import wire


class Session:
    """An instrumented model: calibrate, compress, step, save, and finalize or detach.

    Make one with `laconic.attach`, `laconic.prune` or `laconic.load_session`.

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
        self._baked: dict[Handle, Tensor] = {}
        binding = bind(plan, model)
        self._pruning = Pruning(plan, model, binding)
        self._attachments = attach_instruments(wire(binding), binding.name_of)
        try:
            keep_fused_layers_off(binding.owners.universe.modules, self._attachments)
            self._pruning.start()
        except BaseException:
            self.detach()
            raise

    def __repr__(self) -> str:
        return f"<laconic.Session {self._state}: {len(self.plan)} targets, step {self.steps}>"

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
        self._pruning.calibrate(batches, forward)

    def compress(self) -> None:
        """Compute masks and put them in force; all of them or, after an error, none.

        With a schedule this is the state before its first update; `step` goes on from there.

        Raises:
            SessionError: something must be called first, and the text says what.
            CalibrationError: importances are not finite.
            PlanError: the tensors do not fit the plan after all.
        """
        need_attached(self._state, "compress")
        self._pruning.compress(self.steps)
        self._record("compress")
        warn_of_misses(self.report())

    def step(self) -> None:
        """Advance the clock by one optimizer step; call it after ``optimizer.step()``.

        Raises:
            SessionError: `compress` was not called, or the session is finished.
            CalibrationError: importances are not finite; neither clock nor masks have moved.
        """
        need_attached(self._state, "step")
        self._pruning.need_masks_to_step()
        has_new_masks = self._pruning.step(self.steps + 1)
        self.steps += 1
        if has_new_masks:
            self._record("step")

    def loss(self) -> Tensor:
        """Return the distillation and regularisation loss since the last call.

        Returns:
            0-dim, float32, on the model's device; zero when no stage adds a loss.
        """
        need_attached(self._state, "loss")
        zero = torch.zeros((), device=first_device(self.model))
        return sum(self._pruning.penalty(self.steps), start=zero)

    def total_loss(self, task_loss: Tensor) -> Tensor:
        """Return ``task_loss_weight * task_loss + session.loss()``.

        Args:
            task_loss: 0-dim, the user's own loss.
        """
        return task_loss * task_loss_weight(self.plan) + self.loss()

    def parameters(self) -> Iterator[Tensor]:
        """Return what algorithms learn besides the model's parameters, for an optimizer.

        From this call on the session no longer moves them itself: give them to your optimizer.
        """
        need_attached(self._state, "parameters")
        return iter(self._pruning.hand_over())

    def set_masks(self, masks: Mapping[str, Mapping[str, Tensor]], *, freeze: bool = False) -> None:
        """Put your own masks in force: mask more, or let masked weights grow back.

        Args:
            masks: {module: {target: mask}}, bool, True = kept, the target's shape or one that
                broadcasts to it. Targets that are aligned with these follow.
            freeze: whether algorithms and schedules leave these targets alone from now on.

        Raises:
            SessionError: there is no such target, or the mask does not fit it.
        """
        need_attached(self._state, "set_masks")
        self._pruning.set_masks(masks, is_frozen=freeze)
        self._record("set_masks")

    def teacher_forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the teacher under no_grad in eval mode.

        Args:
            *args: the teacher's positional arguments.
            **kwargs: the teacher's keyword arguments.

        Raises:
            SessionError: the session has no teacher.
        """
        need_attached(self._state, "teacher_forward")
        if self.teacher is None:
            raise SessionError(
                "the session has no teacher; give it to laconic.attach(..., teacher=...)"
            )
        with evaluating(self.teacher):
            return self.teacher(*args, **kwargs)

    def masks(self) -> dict[str, dict[str, Tensor]]:
        """Return {module: {target: mask}} for every target that has one.

        Returns:
            Bool tensors, True = kept, the target's full shape; for inputs and outputs the shape
            of one sample. They are copies.
        """
        return by_target(
            (handle.plan, full_mask(handle, kept, sample_shape(self._pruning.statistics, handle)))
            for handle, kept in self._kept("masks")
        )

    def qparams(self) -> dict[str, dict[str, QParams]]:
        """Return {module: {target: QParams}} for every quantized target."""
        need_values(self._state, "qparams")
        return {}

    def sparsity(self) -> dict[str, dict[str, float]]:
        """Return {module: {target: masked fraction of the target's elements}}."""
        masks = self._masks("sparsity")
        return by_target((handle.plan, masked_share(handle, mask)) for handle, mask in masks)

    def report(self) -> Report:
        """Return what the session did, as data that prints and writes HTML."""
        need_values(self._state, "report")
        return build_report(self)

    def growing_stages(self) -> tuple[int, ...]:
        """Return the stages, by index in the recipe, whose sparsity is still growing."""
        return self._pruning.growing(self.steps)

    def save(self, directory: str | os.PathLike[str]) -> None:
        """Save the session, so that `laconic.load_session` goes on bit for bit.

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
        self._pruning.need_masks(
            "finalize() found nothing in force; call session.compress() first, or "
            "session.detach() to get the dense model back"
        )
        self._baked = dict(self._kept("finalize"))
        bake(self._pruning.handles)
        staying = keep_activations(self._pruning.handles)
        self._pruning.stop()
        detach_instruments(self._attachments, keep=staying)
        self._state = "finalized"
        warn_of_staying(staying)
        registry().observe("laconic_finalized", session=self)
        return self.model

    def detach(self) -> nn.Module:
        """Remove everything laconic added and give the dense model back, bit for bit.

        Returns:
            The model.

        Raises:
            SessionError: the session was finalized, so the dense weights are gone.
        """
        if self._state == "detached":
            return self.model
        need_attached(self._state, "detach")
        self._pruning.stop()
        detach_instruments(self._attachments)
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

    def _record(self, event: str) -> None:
        shares = [(handle, masked_share(handle, mask)) for handle, mask in self._masks(event)]
        self.history.append(
            {"step": self.steps, "event": event, "sparsity": total_sparsity(shares)}
        )
        sparsity = by_target((handle.plan, share) for handle, share in shares)
        registry().observe("laconic_masks_updated", session=self, sparsity=sparsity)

    def _kept(self, call: str) -> Iterator[tuple[Handle, Tensor]]:
        for handle, mask in self._masks(call):
            yield handle, is_kept(handle, mask)

    def _masks(self, call: str) -> Iterator[tuple[Handle, Tensor]]:
        need_values(self._state, call)
        for handle in self._pruning.handles:
            mask = self._baked.get(handle)
            mask = mask_of(handle) if mask is None else mask
            if mask is not None:
                yield handle, mask
