"""The teacher of distillation: which one may serve, and how its targets are read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from tersely.contracts.target_plan import TargetPlan
from tersely.errors import AttachError, SessionError
from tersely.instrument.instruments import OutputSite
from tersely.instrument.sites.inputs import input_site, process_inputs
from tersely.instrument.sites.outputs import process_output
from tersely.instrument.tapping import Tap
from tersely.planning.targets.addresses import Address, parse_address
from tersely.planning.targets.signature import signature_of


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


def module_of(teacher: nn.Module, link: str, plan: TargetPlan) -> nn.Module:
    """Return the teacher's module that a target is linked to.

    Args:
        teacher: the teacher.
        link: the module's name.
        plan: the student's target.

    Raises:
        SessionError: there is no such module.
    """
    found: dict[str, nn.Module] = dict(teacher.named_modules(remove_duplicate=False))
    if link in found:
        return found[link]
    raise SessionError(
        f"{plan.name} is linked to {link!r}, which is not a module of the teacher", **plan.place
    )


def read_parameter(teacher: nn.Module, plan: TargetPlan, link: str) -> Tensor:
    """Return a parameter of the teacher, detached.

    Args:
        teacher: the teacher.
        plan: the student's target.
        link: the name of the teacher's module that it is linked to.

    Raises:
        SessionError: there is no such module, or it has no such tensor.
    """
    found: object = getattr(module_of(teacher, link, plan), plan.target, None)
    if not isinstance(found, Tensor):
        raise SessionError(
            f"{plan.name} is linked to {teacher_name(plan, link)}, which the teacher does not "
            "have; link a module that has it",
            **plan.place,
        )
    return found.detach()


def teacher_name(plan: TargetPlan, link: str) -> str:
    """Return the full name of the teacher's target that a student's target is linked to.

    Args:
        plan: the student's target.
        link: the name of the teacher's module.
    """
    return f"{link}.{plan.target}" if link else plan.target


def listen(module: nn.Module, plan: TargetPlan, tap: Tap) -> Any:
    """Let a tap take a module's input or output in every forward pass.

    Args:
        module: the teacher's module.
        plan: the student's target, which has the address.
        tap: what takes the values.

    Returns:
        The hook's handle.
    """
    address = parse_address(plan.target) or Address("output")
    if plan.kind == "input":
        site = input_site(plan.target, address, signature_of(module))

        def enter(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            process_inputs(module, {site: (tap,)}, args, kwargs)

        return module.register_forward_pre_hook(enter, with_kwargs=True)
    place = OutputSite(plan.target, address.key, address.path)

    def leave(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        process_output(module, {place: (tap,)}, output)

    return module.register_forward_hook(leave)
