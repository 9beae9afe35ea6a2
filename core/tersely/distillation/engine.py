"""The distillation of a session: taps in both models, and the loss between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tersely.contracts.target_plan import TargetPlan
from tersely.distillation.pairs import Pair, loss_of, module_of
from tersely.distillation.projection import Projections
from tersely.document.recipe import Stage
from tersely.engine.binding import Binding, Handle
from tersely.engine.optimizing import step_optimizer
from tersely.errors import AttachError, SessionError
from tersely.instrument.instruments import OutputSite
from tersely.instrument.names import TAP
from tersely.instrument.sites import input_site, process_inputs, process_output
from tersely.instrument.tapping import Tap
from tersely.instrument.transforms import put
from tersely.planning.addresses import Address, parse_address
from tersely.planning.signature import signature_of


class Distillation:
    """All distillation stages of a session; mutable because taps fill and projections learn.

    Attributes:
        pairs: every student target with what it learns from.
        projections: the learned maps between widths.
        teacher: the teacher, or None.
    """

    def __init__(self, binding: Binding, teacher: nn.Module | None) -> None:
        self.teacher = teacher
        self.projections = Projections()
        self._hooks: list[Any] = []
        self.handles = tuple(one for one in binding.handles if one.plan.method == "distillation")
        stages = binding.plan.recipe.stages
        self.pairs = tuple(_pair(handle, stages[handle.plan.stage]) for handle in self.handles)

    def start(self) -> None:
        """Put taps into the instrumented student and listen to the teacher.

        Raises:
            SessionError: a link is no module of the teacher.
        """
        for pair in self.pairs:
            for module, attribute in pair.handle.owners:
                put(module, attribute, (pair.student,), place=TAP)
            if self.teacher is None:
                continue
            for link, tap in pair.teachers.items():
                module = module_of(self.teacher, link, pair.plan)
                self._hooks.append(_listen(module, pair.plan, tap))

    def stop(self) -> None:
        """Stop listening and forget what was heard."""
        for hook in self._hooks:
            hook.remove()
        self._hooks.clear()
        self.forget()

    def forget(self) -> None:
        """Forget what taps hold."""
        for pair in self.pairs:
            pair.student.take()
            for tap in pair.teachers.values():
                tap.take()

    def is_running(self, steps: int) -> bool:
        """Tell whether a stage is at work.

        Args:
            steps: optimizer steps so far.
        """
        return any(pair.stage.is_running(steps) for pair in self.pairs)

    def loss(self, steps: int) -> list[Tensor]:
        """Return lambda times loss of every pair whose stage is at work.

        Taps are empty afterwards, come what may.

        Args:
            steps: optimizer steps so far.

        Raises:
            SessionError: a side of a pair was not seen since the last loss, or the tensors do not
                go together.
            PluginError: a loss failed.
        """
        pairs = [pair for pair in self.pairs if pair.stage.is_running(steps)]
        try:
            self._read_parameters(pairs)
            for pair in pairs:
                missing = pair.missing()
                if missing is not None:
                    raise SessionError(missing)
            return [pair.compute(self.projections) for pair in pairs]
        finally:
            self.forget()

    def _read_parameters(self, pairs: Sequence[Pair]) -> None:
        # A parameter is not called, so nothing flows through its tap: it is read when it counts.
        for pair in pairs:
            if pair.handle.is_activation:
                continue
            getattr(pair.handle.module, pair.plan.target)
            for link, tap in pair.teachers.items():
                if self.teacher is not None:
                    module = module_of(self.teacher, link, pair.plan)
                    tap.value = _read(module, pair, link)

    def step(self) -> None:
        """Move projections, unless the user's optimizer does."""
        if self.projections.optimizer is not None:
            step_optimizer(self.projections.optimizer)

    def hand_over(self) -> list[Tensor]:
        """Return what is learned; from now on the user's optimizer moves it.

        Raises:
            SessionError: a projection is not made yet, because no batch was seen.
        """
        waiting = [pair.plan.name for pair in self.pairs if self._is_waiting(pair)]
        if waiting and not self.projections.tensors:
            raise SessionError(
                f"the projection of {waiting[0]} is made when the first batch shows both widths; "
                f"run the model, session.teacher_forward(...) and session.loss() once before "
                f"session.parameters()"
            )
        return self.projections.hand_over()

    def _is_waiting(self, pair: Pair) -> bool:
        return pair.is_projected and not any(
            f"{pair.plan.name}>{link}" in self.projections.tensors for link in pair.teachers
        )

    def take_targets(self) -> dict[str, Tensor]:
        """Return what the teacher's taps hold, by ``student target>link``, and empty them.

        Raises:
            SessionError: a target of the teacher was not seen.
        """
        found = {}
        for pair in self.pairs:
            for link, tap in pair.teachers.items():
                value = tap.take()
                if value is None:
                    raise SessionError(
                        f"{pair.teacher_name(link)} of the teacher was not seen: no batch reached "
                        f"it, or something calls its module's forward without calling the module"
                    )
                found[f"{pair.plan.name}>{link}"] = value
        return found

    def put_targets(self, targets: Mapping[str, Tensor]) -> None:
        """Fill the teacher's taps as if the teacher had run.

        Args:
            targets: what `take_targets` returned for the batch.
        """
        for pair in self.pairs:
            for link, tap in pair.teachers.items():
                tap.value = targets[f"{pair.plan.name}>{link}"]


def need_teacher(plans: Sequence[TargetPlan], teacher: nn.Module | None, model: nn.Module) -> None:
    """Refuse a teacher that is the student.

    Args:
        plans: the plan's targets.
        teacher: the teacher, or None.
        model: the student.

    Raises:
        AttachError: the teacher shares its modules with the student.
    """
    if teacher is None or not any(plan.method == "distillation" for plan in plans):
        return
    own = set(model.modules())
    if any(module in own for module in teacher.modules()):
        raise AttachError(
            "the teacher shares modules with the model, so compressing one would change the other; "
            "give a copy: teacher=copy.deepcopy(model)"
        )


def _pair(handle: Handle, stage: Stage) -> Pair:
    plan = handle.plan
    setting = plan.distillation
    return Pair(
        handle=handle,
        student=Tap(keeps_graph=True, is_copying=handle.is_activation),
        teachers={link: Tap(keeps_graph=False) for link in setting.links_of(plan.module)},
        weight=setting.weight,
        loss=loss_of(plan),
        options=setting.loss_options,
        is_projected=setting.projection == "linear",
        stage=stage,
    )


def _read(module: nn.Module, pair: Pair, link: str) -> Tensor:
    found: object = getattr(module, pair.plan.target, None)
    if not isinstance(found, Tensor):
        raise SessionError(
            f"{pair.plan.name} is linked to {pair.teacher_name(link)}, which the teacher does not "
            f"have; link a module that has it"
        )
    return found.detach()


def _listen(module: nn.Module, plan: TargetPlan, tap: Tap) -> Any:
    address = parse_address(plan.target) or Address("output")
    if plan.kind == "input":
        site = input_site(plan.target, address, signature_of(module))

        def enter(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            process_inputs(module, {site: (tap,)}, args, kwargs)

        return module.register_forward_pre_hook(enter, with_kwargs=True)
    place = OutputSite(plan.target, address.key)

    def leave(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        process_output(module, {place: (tap,)}, output)

    return module.register_forward_hook(leave)


def to_device(value: Any, device: torch.device) -> Any:
    """Return a batch with its tensors on a device.

    Args:
        value: a tensor, or tuples, lists and mappings of values.
        device: where to.
    """
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, tuple) and hasattr(value, "_make"):
        return value._make(to_device(one, device) for one in value)
    if isinstance(value, (list, tuple)):
        return type(value)(to_device(one, device) for one in value)
    if isinstance(value, dict):
        return {key: to_device(one, device) for key, one in value.items()}
    return value
