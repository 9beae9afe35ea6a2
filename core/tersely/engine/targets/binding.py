"""Bound targets: a planned target bound to the tensors of a real model."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from itertools import chain

import attrs
import torch
from torch import Tensor, nn

from tersely.contracts.settings import PruningSetting
from tersely.contracts.target_plan import TargetPlan
from tersely.errors import AttachError, SessionError
from tersely.instrument.modules.classes import is_sharded
from tersely.instrument.names import mask_buffer
from tersely.planning.plan import Plan
from tersely.planning.selecting.selection import Universe
from tersely.planning.targets.owners import Owners, find_tensor


@attrs.frozen(eq=False)
class BoundTarget:
    """One planned target and every module that holds its tensor.

    Attributes:
        plan: what the config says of it.
        module: the module it is planned for.
        others: module and attribute of each further holder of a tied parameter.
    """

    plan: TargetPlan
    module: nn.Module
    others: tuple[tuple[nn.Module, str], ...] = ()

    @property
    def owners(self) -> tuple[tuple[nn.Module, str], ...]:
        """Module and attribute (or address) of each holder, the planned one first."""
        return ((self.module, self.plan.target), *self.others)

    @property
    def is_activation(self) -> bool:
        """Whether the target is an input or output."""
        return self.plan.kind in ("input", "output")

    @property
    def is_additive(self) -> bool:
        """Whether the mask is added instead of multiplied."""
        setting = self.plan.setting
        return isinstance(setting, PruningSetting) and setting.is_additive

    @property
    def raw(self) -> Tensor:
        """The parameter or buffer itself, which may be a sharded DTensor."""
        tensor = find_tensor(self.module, self.plan.target)
        if tensor is None:
            raise SessionError(
                f"{self.plan.name} was set to None after the session was attached",
                **self.plan.place,
            )
        return tensor

    def dense(self) -> Tensor:
        """Return the whole raw values, detached; a sharded parameter is gathered."""
        tensor = self.raw.detach()
        if tensor.is_meta:
            raise SessionError(
                f"{self.plan.name} is on the meta device, so it has no values to rank; load the "
                "model's weights before session.compress()",
                **self.plan.place,
            )
        return whole(tensor)

    def gradient(self) -> Tensor | None:
        """Return the whole gradient of the parameter, or None when it has none."""
        gradient = self.raw.grad
        return None if gradient is None else whole(gradient)

    def write(self, values: Tensor) -> None:
        """Write new raw values in place; a sharded parameter gets its part of them.

        Args:
            values: the target's shape, or one that broadcasts to it.
        """
        raw = self.raw
        with torch.no_grad():
            raw.copy_(like_raw(values, raw))

    def masks(self) -> Iterator[tuple[nn.Module, str]]:
        """Yield the module and the buffer name of every holder's mask."""
        for module, attribute in self.owners:
            yield module, mask_buffer(attribute)


@attrs.frozen(eq=False, slots=False)
class Binding:
    """A plan bound to a model, each target checked against it.

    Attributes:
        plan: a plan of this model, or of one of the same structure.
        modules: each target's module, in plan order.
        owners: who owns which tensor.
    """

    plan: Plan
    modules: tuple[nn.Module, ...]
    owners: Owners

    def others(self, target: TargetPlan, module: nn.Module) -> tuple[tuple[nn.Module, str], ...]:
        """Return module and attribute of each further holder of a tied parameter.

        Args:
            target: a target of the plan.
            module: its module.
        """
        if self.owners.is_plain or target.shape is None:
            return ()
        universe = self.owners.universe
        own = (universe.first[id(module)], target.target)
        return tuple(
            (universe.modules[place], attribute)
            for place, attribute in self.owners.of(_checked_tensor(target, module))
            if (place, attribute) != own
        )

    @cached_property
    def bound_targets(self) -> tuple[BoundTarget, ...]:
        """Every target of the plan, bound, in plan order; made on first use."""
        if self.owners.is_plain:  # nothing is tied, so no target needs a lookup
            return tuple(map(BoundTarget, self.plan.targets, self.modules))
        return tuple(
            BoundTarget(target, module, self.others(target, module))
            for target, module in zip(self.plan.targets, self.modules, strict=True)
        )

    def name_of(self, module: nn.Module) -> str:
        """Return the name of one of the plan's modules.

        Args:
            module: the module.
        """
        universe = self.owners.universe
        return universe.names[universe.first[id(module)]]


def bind(plan: Plan, model: nn.Module, *, owners: Owners | None = None) -> Binding:
    """Bind a plan to a model.

    Args:
        plan: a plan of this model, or of one of the same structure.
        model: the model to bind to.
        owners: what the plan was made with, if it was just made from this very model; nothing is
            checked again then.

    Raises:
        AttachError: a module or tensor of the plan is not in the model, or has another shape.
    """
    if owners is not None:
        index, modules = owners.universe.index, owners.universe.modules
        return Binding(plan, tuple([modules[index[one.module]] for one in plan.targets]), owners)
    universe = Universe.of(model)
    index, modules = universe.index, universe.modules
    owners = Owners(universe)
    is_plain = owners.is_plain
    found = []
    for target in plan.targets:
        position = index.get(target.module)
        if position is None:
            raise AttachError(
                f"the plan has module {target.module!r}, which the model does not have; plan "
                "again with tersely.plan(model, recipe)",
                target=target.name,
                path=target.origin.path,
                algorithm=target.algorithm,
            )
        module = modules[position]
        found.append(module)
        tensor = None if target.shape is None else _checked_tensor(target, module)
        if target.shared_with or not is_plain:
            shared = owners.others(universe.first[id(module)], target.target, tensor)
            _check_sharing(target, shared)
    return Binding(plan, tuple(found), owners)


def _check_sharing(target: TargetPlan, shared: tuple[str, ...]) -> None:
    if shared != target.shared_with:
        planned = ", ".join(target.shared_with) or "nothing"
        raise AttachError(
            f"the plan has {target.name} shared with {planned}, in the model it is shared with "
            f"{', '.join(shared) or 'nothing'}; plan again with tersely.plan(model, recipe)",
            **target.place,
        )


def _checked_tensor(target: TargetPlan, module: nn.Module) -> Tensor:
    try:
        tensor = find_tensor(module, target.target)
    except KeyError:
        tensor = None
    if tensor is None or tensor.shape != target.shape:
        found = "nothing" if tensor is None else f"shape {list(tensor.shape)}"
        raise AttachError(
            f"the plan has {target.name} with shape {list(target.shape or ())}, the model has "
            f"{found} there; plan again with tersely.plan(model, recipe)",
            **target.place,
        )
    return tensor


def whole(tensor: Tensor) -> Tensor:
    """Return all values of a tensor, which every process has to request when it is sharded.

    Args:
        tensor: plain, or a sharded DTensor.
    """
    if not is_sharded(tensor):
        return tensor
    gathered: Tensor = tensor.full_tensor()  # type: ignore[attr-defined]  # DTensor's
    return gathered


def like_raw(values: Tensor, raw: Tensor) -> Tensor:
    """Return values in a parameter's dtype, sharded as it is.

    Args:
        values: the parameter's shape, or one that broadcasts to it.
        raw: the parameter.
    """
    if not is_sharded(raw):
        return values.to(raw.dtype)
    from torch.distributed.tensor import distribute_tensor  # only sharded models need it

    full = values.to(raw.dtype).expand(raw.shape).contiguous()
    return distribute_tensor(full, raw.device_mesh, raw.placements)  # type: ignore[attr-defined]  # DTensor


def first_device(model: nn.Module) -> torch.device:
    """Return the device of a model's first parameter or buffer, or the CPU without any."""
    for tensor in chain(model.parameters(), model.buffers()):
        return tensor.device
    return torch.device("cpu")
