"""A loss as a config asks for it: made with its options, called, and what it returns checked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import cast

import attrs
import torch
from torch import Tensor

from tersely.contracts.loss import StatefulLoss
from tersely.contracts.target_plan import TargetPlan
from tersely.engine.isolation.foreign import ForeignCall
from tersely.errors import PluginError, SessionError
from tersely.json_value import Json
from tersely.registry.descriptors import LossInfo
from tersely.registry.registry import registry

Loss = Callable[..., Tensor]


@attrs.frozen(eq=False)
class AskedLoss:
    """A loss with the options that a config gives it.

    Attributes:
        function: what computes it.
        info: its descriptor.
        options: its options as the config has them.
        parts: option -> the part of the batch that it names.
    """

    function: Loss
    info: LossInfo
    options: Mapping[str, Json]
    parts: Mapping[str, str | int]

    @property
    def needs_teacher(self) -> bool:
        """Whether it compares with the teacher."""
        return self.info.needs == "teacher"

    @property
    def is_joined(self) -> bool:
        """Whether it takes several targets at once, as tuples."""
        return self.info.targets != 1

    @property
    def is_stateful(self) -> bool:
        """Whether it is a class with state of its own."""
        return isinstance(self.function, type) and issubclass(self.function, StatefulLoss)

    @property
    def own_options(self) -> dict[str, Json]:
        """The options that a class is made with: those that name no input or part of the batch."""
        named = (*self.info.input_options, *self.info.batch_options)
        return {option: one for option, one in self.options.items() if option not in named}

    def parts_of(self, batch: object, plan: TargetPlan, device: torch.device) -> dict[str, object]:
        """Return what the loss asks for of a batch, by option; tensors on the student's device.

        Args:
            batch: what the session was given, or None.
            plan: the student's target.
            device: where the student's values are.

        Raises:
            SessionError: there is no batch, or it lacks a part; the text shows the call.
        """
        found: dict[str, object] = {}
        for option, key in self.parts.items():
            try:
                part = _part_of(batch, key)
            except LookupError as error:
                name = self.info.name
                raise SessionError(
                    f"{plan.name}: {name} needs {key!r} of the batch (its option {option!r}), and "
                    f"{error.args[0]}; call session.total_loss(task_loss, batch=batch) with a "
                    "batch that has it, or write what it is called there: apply_method: "
                    f"{{{name}: {{{option}: ...}}}}",
                    **plan.place,
                ) from None
            found[option] = part.to(device) if isinstance(part, Tensor) else part
        return found

    def __call__(
        self,
        student: object,
        teacher: object,
        given: Mapping[str, object],
        *,
        plan: TargetPlan,
        where: str,
        module: StatefulLoss | None = None,
    ) -> Tensor:
        """Return the loss.

        Args:
            student: the student's values.
            teacher: the teacher's values, or None where it needs none.
            given: option -> the model's input, or the part of the batch, that the option names.
            plan: the student's target.
            where: the targets in words, for errors.
            module: the object of a class with state, or None for a function.

        Raises:
            SessionError: the loss says that the tensors do not go together.
            PluginError: the loss failed, or returned something else than a scalar.
        """
        name = plan.algorithm

        def refusal(error: ValueError) -> SessionError:
            return SessionError(f"{where}: {error}", **plan.place)

        failure = f"the loss {name} failed on {where}, {_shapes(student, teacher)}"
        with ForeignCall(failure, plugin=name, target=plan.name, refusal=refusal):
            if module is None:
                found: object = self.function(student, teacher, **{**self.options, **given})
            else:
                found = module(student, teacher, **given)
        if not isinstance(found, Tensor) or found.ndim:
            shape = list(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise PluginError(
                f"the loss {name} returned {shape} for {where}; expected a 0-dim tensor",
                plugin=name,
                target=plan.name,
            )
        return found


def asked_loss(plan: TargetPlan) -> AskedLoss:
    """Return a target's loss.

    Args:
        plan: a distillation target.
    """
    setting = plan.distillation
    info = registry().losses.info(setting.loss)
    return AskedLoss(
        cast("Loss", registry().losses[setting.loss]),
        info,
        setting.loss_options,
        batch_parts(info, setting.loss_options),
    )


def batch_parts(info: LossInfo, options: Mapping[str, Json]) -> dict[str, str | int]:
    """Return which part of the batch each option of a loss names, without those that name none.

    Args:
        info: the loss's descriptor.
        options: its options as a config has them.
    """
    schema = info.options.get("properties", {})
    named = {
        option: options.get(option, schema.get(option, {}).get("default"))
        for option in info.batch_options
    }
    return {option: key for option, key in named.items() if key is not None}


def _part_of(batch: object, key: str | int) -> object:
    if batch is None:
        raise LookupError("there was no batch")
    if isinstance(batch, Mapping):
        if key in batch:
            return batch[key]
        raise LookupError(f"the batch has {', '.join(map(repr, batch)) or 'nothing'}")
    if isinstance(batch, Sequence):
        if isinstance(key, int) and -len(batch) <= key < len(batch):
            return batch[key]
        # A tuple has methods such as `index`; a named tuple has fields.
        if key in getattr(batch, "_fields", ()):
            return getattr(batch, str(key))
        raise LookupError(
            f"the batch is a {type(batch).__name__} of {len(batch)}, whose parts are called by "
            "their place, from 0"
        )
    part = None if isinstance(batch, Tensor) else getattr(batch, str(key), None)
    if part is None or callable(part):
        raise LookupError(f"the batch is a {type(batch).__name__} without it")
    return part


def _shapes(student: object, teacher: object) -> str:
    given = [one if isinstance(one, tuple) else (one,) for one in (student, teacher)]
    shapes = [tuple(one.shape) for each in given for one in each if isinstance(one, Tensor)]
    word = "shape" if len(shapes) == 1 else "shapes"
    return f"{word} {' and '.join(map(str, shapes))}"
