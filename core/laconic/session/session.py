"""Session: the one mutable object, from an instrumented model to a finished one."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from fractions import Fraction
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from laconic.algorithms import QParams
from laconic.document.recipe import Recipe
from laconic.errors import AttachError, SessionError
from laconic.instrument.attaching import attach_instruments, detach_instruments
from laconic.planning.plan import Plan
from laconic.planning.resolve import plan as make_plan
from laconic.registry.descriptors import Json
from laconic.session.baking import bake, keep_activations
from laconic.session.by_target import ByTarget
from laconic.session.clock import factor_at, is_due
from laconic.session.handles import Handle, bind, first_device
from laconic.session.mask_state import full_mask, is_kept, mask_of, write_mask
from laconic.session.observing import (
    Forward,
    Statistic,
    default_granularity,
    observe,
    run_batches,
    statistic_for,
)
from laconic.session.pruning import decide_masks, follow, importance_of, rank
from laconic.session.runs import PruningRun, start_runs
from laconic.session.wiring import wire

if TYPE_CHECKING:
    from laconic.session.report import Report


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
        _refuse_later_methods(plan)
        self.model = model
        self.plan = plan
        self.teacher = teacher
        self.history: list[dict[str, Json]] = []
        self.metrics: dict[str, float] = {}
        self.steps = 0
        self._runs: tuple[PruningRun, ...] = start_runs(plan)
        self._statistics: dict[Handle, Statistic] = {}
        self._is_compressed = False
        self._state: str = "attached"
        self._baked: dict[Handle, Tensor] = {}
        self._binding = bind(plan, model)
        self._attachments = attach_instruments(wire(self._binding), self._name_of)

    def __repr__(self) -> str:
        return f"<laconic.Session {self._state}: {len(self.plan)} targets, step {self.steps}>"

    @cached_property
    def _handles(self) -> tuple[Handle, ...]:
        return self._binding.handles()

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
        self._need("attached", "calibrate")
        fresh = {
            handle: statistic_for(handle, default_granularity(handle, self.plan.recipe.stages))
            for handle in self._handles
            if handle.is_activation
        }
        with observe(fresh):
            count = run_batches(self.model, batches, forward)
        if count == 0:
            from laconic.errors import CalibrationError

            raise CalibrationError("calibrate() was given no batch; pass at least one")
        for statistic in fresh.values():
            statistic.mean()
        self._statistics = fresh

    def compress(self) -> None:
        """Compute masks and put them in force; all of them or, after an error, none.

        With a schedule this is the state before its first update; `step` goes on from there.

        Raises:
            SessionError: something must be called first, and the text says what.
            CalibrationError: importances are not finite.
            PlanError: the tensors do not fit the plan after all.
        """
        self._need("attached", "compress")
        decided: dict[Handle, Tensor] = {}
        for run in self._runs:
            decided |= self._decide(run, factor_at(run.schedule, self.steps))
        self._put_in_force(decided, "compress")
        self._is_compressed = True

    def step(self) -> None:
        """Advance the clock by one optimizer step; call it after ``optimizer.step()``.

        Raises:
            SessionError: `compress` was not called, or the session is finished.
        """
        self._need("attached", "step")
        if self._runs and not self._is_compressed:
            raise SessionError(
                "step() found no masks in force; call session.compress() before the training loop"
            )
        self.steps += 1
        decided: dict[Handle, Tensor] = {}
        for run in self._runs:
            if run.schedule is not None and is_due(run.schedule, self.steps):
                decided |= self._decide(run, factor_at(run.schedule, self.steps))
        if decided:
            self._put_in_force(decided, "step")

    def loss(self) -> Tensor:
        """Return the distillation and regularisation loss since the last call.

        Returns:
            0-dim, float32, on the model's device; zero when no stage adds a loss.
        """
        self._need("attached", "loss")
        return torch.zeros((), device=first_device(self.model))

    def total_loss(self, task_loss: Tensor) -> Tensor:
        """Return ``task_loss_weight * task_loss + session.loss()``.

        Args:
            task_loss: 0-dim, the user's own loss.
        """
        weight = 1.0
        for stage in self.plan.recipe.stages:
            if stage.method == "distillation":
                weight = stage.task_loss_weight
        return task_loss * weight + self.loss()

    def parameters(self) -> Iterator[nn.Parameter]:
        """Yield what algorithms learn besides the model's parameters, for an optimizer."""
        self._need("attached", "parameters")
        yield from ()

    def teacher_forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the teacher under no_grad in eval mode.

        Args:
            *args: the teacher's positional arguments.
            **kwargs: the teacher's keyword arguments.

        Raises:
            SessionError: the session has no teacher.
        """
        self._need("attached", "teacher_forward")
        if self.teacher is None:
            raise SessionError(
                "the session has no teacher; give it to laconic.attach(..., teacher=...)"
            )
        modes = [(module, module.training) for module in self.teacher.modules()]
        try:
            self.teacher.eval()
            with torch.no_grad():
                return self.teacher(*args, **kwargs)
        finally:
            for module, mode in modes:
                module.training = mode

    def masks(self) -> dict[str, dict[str, Tensor]]:
        """Return {module: {target: mask}} for every target that has one.

        Returns:
            Bool tensors, True = kept, the target's full shape; for inputs and outputs the shape
            of one sample. They are copies.
        """
        found: dict[str, dict[str, Tensor]] = {}
        for handle, kept in self._kept():
            statistic = self._statistics.get(handle)
            sample = None if statistic is None else statistic.sample_shape
            targets = found.setdefault(handle.plan.module, ByTarget())
            targets[handle.plan.target] = full_mask(handle, kept, sample)
        return found

    def qparams(self) -> dict[str, dict[str, QParams]]:
        """Return {module: {target: QParams}} for every quantized target."""
        self._need_values("qparams")
        return {}

    def sparsity(self) -> dict[str, dict[str, float]]:
        """Return {module: {target: masked fraction of the target's elements}}."""
        found: dict[str, dict[str, float]] = {}
        for handle, kept in self._kept():
            targets = found.setdefault(handle.plan.module, ByTarget())
            masked = kept.numel() - int(kept.sum())
            targets[handle.plan.target] = masked / kept.numel() if kept.numel() else 0.0
        return found

    def report(self) -> Report:
        """Return what the session did, as data that prints and writes HTML."""
        from laconic.session.report import build_report

        self._need_values("report")
        return build_report(self)

    def save(self, directory: str | os.PathLike[str]) -> None:
        """Save the session, so that `laconic.load_session` goes on bit for bit.

        The model's weights are not in it: save them with your checkpoint.

        Args:
            directory: a folder; a session saved there before is replaced atomically.

        Raises:
            SessionFileError: the folder cannot be written; what was there is untouched.
        """
        from laconic.session.resuming import save

        self._need("attached", "save")
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
        self._need("attached", "finalize")
        if self._runs and not self._is_compressed:
            raise SessionError(
                "finalize() found nothing in force; call session.compress() first, or "
                "session.detach() to get the dense model back"
            )
        self._baked = dict(self._kept())
        bake(self._handles)
        staying = keep_activations(self._handles)
        detach_instruments(self._attachments, keep=staying)
        self._state = "finalized"
        from laconic.registry.registry import registry

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
        self._need("attached", "detach")
        detach_instruments(self._attachments)
        self._state = "detached"
        return self.model

    def state(self) -> tuple[dict[str, Tensor], dict[str, Json]]:
        """Return everything that `restore` needs: tensors and JSON data."""
        from laconic.session.resuming import session_state

        return session_state(self)

    def restore(self, tensors: Mapping[str, Tensor], data: Mapping[str, Json]) -> None:
        """Continue from a state that `state` returned.

        Args:
            tensors: its tensors.
            data: its JSON data.

        Raises:
            SessionFileError: the state belongs to another plan or model.
        """
        from laconic.session.resuming import restore_state

        self._need("attached", "restore")
        restore_state(self, tensors, data)

    def _decide(self, run: PruningRun, factor: float | Fraction) -> dict[Handle, Tensor]:
        stages = self.plan.recipe.stages
        ranked = [
            rank(handle, self._statistics, stages)
            for handle in self._handles
            if handle.plan.stage == run.number and handle.plan.setting.get("align") is None
        ]
        importances = [importance_of(run.pruner, one) for one in ranked]
        return decide_masks(ranked, importances, factor)

    def _put_in_force(self, decided: dict[Handle, Tensor], event: str) -> None:
        follow(self._handles, decided)
        for handle, kept in decided.items():
            write_mask(handle, kept, self._mask_dtype(handle))
        sparsity = self.sparsity()
        self.history.append(
            {"step": self.steps, "event": event, "sparsity": self._total_sparsity()}
        )
        from laconic.registry.registry import registry

        registry().observe("laconic_masks_updated", session=self, sparsity=sparsity)

    def _mask_dtype(self, handle: Handle) -> torch.dtype:
        if not handle.is_activation:
            return handle.raw.dtype
        for tensor in self.model.parameters():
            if tensor.is_floating_point():
                return tensor.dtype
        return torch.get_default_dtype()

    def _total_sparsity(self) -> float:
        masked = total = 0
        for handle, kept in self._kept():
            if handle.plan.shape is not None:
                elements = handle.raw.numel()
                share = 1 - int(kept.sum()) / kept.numel() if kept.numel() else 0.0
                masked += round(share * elements)
                total += elements
        return masked / total if total else 0.0

    def _kept(self) -> Iterator[tuple[Handle, Tensor]]:
        self._need_values("masks")
        for handle in self._handles:
            if handle in self._baked:
                yield handle, self._baked[handle]
                continue
            mask = mask_of(handle)
            if mask is not None:
                yield handle, is_kept(handle, mask)

    def _name_of(self, module: nn.Module) -> str:
        return next(name for name, one in self.model.named_modules() if one is module)

    def _need(self, state: str, call: str) -> None:
        if self._state != state:
            raise SessionError(
                f"{call}() needs an attached session, this one was {self._state}; call "
                f"laconic.attach(model, recipe) for a new one"
            )

    def _need_values(self, call: str) -> None:
        if self._state == "detached":
            raise SessionError(
                f"{call}() has nothing to show: the session was detached and its masks are gone; "
                f"save() before detach() to keep them"
            )


def attach(
    model: nn.Module,
    recipe: Plan | Recipe | Mapping[str, Json] | str | os.PathLike[str],
    *,
    teacher: nn.Module | None = None,
) -> Session:
    """Instrument a model in place as a recipe or plan says; all or nothing.

    Args:
        model: the user's model; its parameters, names and checkpoints stay as they are.
        recipe: a plan, a loaded recipe, its data, or the path of its file.
        teacher: the teacher of distillation stages.

    Raises:
        ConfigError: the document is wrong.
        PlanError: the document does not fit the model.
        AttachError: a module cannot be instrumented; the model is as it was.
        BrokenPluginError: a plugin the recipe uses cannot be imported.
    """
    plan = recipe if isinstance(recipe, Plan) else make_plan(model, recipe, teacher=teacher)
    return Session(model, plan, teacher=teacher)


def load_session(
    model: nn.Module, directory: str | os.PathLike[str], *, teacher: nn.Module | None = None
) -> Session:
    """Attach a saved session to a model and continue where it was saved.

    Args:
        model: a model of the same structure, with its own weights loaded.
        directory: the folder that `Session.save` wrote.
        teacher: the teacher of distillation stages.

    Raises:
        SessionFileError: the session is damaged or does not fit the model, which is untouched.
    """
    from laconic.session.resuming import load

    return load(model, directory, teacher=teacher)


def _refuse_later_methods(plan: Plan) -> None:
    later = sorted({target.method for target in plan.targets} - {"pruning"})
    if later:
        raise AttachError(
            f"this version of laconic plans {' and '.join(later)} but does not run it yet; attach "
            f"the pruning stages alone"
        )


