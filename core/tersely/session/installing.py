"""A plan installed on its model: the engines, the instruments, and what they share."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import attrs
import torch
from torch import Tensor, nn

from tersely.arithmetic.qparams import QParams
from tersely.engine.context import Context
from tersely.engine.finite import need_finite
from tersely.engine.state.journal import Journal
from tersely.engine.targets.binding import BoundTarget, bind, first_device
from tersely.engine.targets.instrumenting import wire
from tersely.instrument.modules.attaching import Attachments, attach_instruments, detach_instruments
from tersely.instrument.modules.fused import keep_fused_layers_off, with_encoders
from tersely.instrument.modules.layout import place_layout, renew_layout
from tersely.instrument.modules.suspending import suspended
from tersely.planning.groups.counted_budgets import is_counted
from tersely.planning.plan import Plan
from tersely.planning.targets.owners import Owners
from tersely.quantization.folds import with_folds
from tersely.quantization.integers import IntegerTensor
from tersely.session.engines import Engines, make_engines
from tersely.session.periods import need_all_begun
from tersely.session.places import Places
from tersely.session.sharing import Sharing
from tersely.shrinking.counting.removing import CountsShrunk


@attrs.frozen(eq=False)
class Installation:
    """A plan installed on its model; shrinking makes another one.

    Attributes:
        plan: the plan.
        model: the user's model, instrumented in place.
        context: what the engines share.
        engines: the engines.
        attachments: the instrumented modules.
        places: where these are in the model.
        gaining: the modules of which copies from before and after are not averaged.
    """

    plan: Plan
    model: nn.Module
    context: Context
    engines: Engines
    attachments: Attachments
    places: Places
    gaining: tuple[nn.Module, ...] = ()

    @property
    def norms(self) -> Mapping[nn.Module, nn.Module]:
        """Layers into which their batch norm is folded permanently: none before the end."""
        return {}

    def note(self, journal: Journal, *, is_step: bool = False) -> None:
        """Note what may change, so that all of it can be undone.

        Args:
            journal: takes the notes.
            is_step: whether it is a step, which moves what is learned as well.
        """
        journal.note_attributes(self.context, "batches", "has_kept_batches")
        for engine in self.engines:
            engine.note(journal, is_step=is_step)

    def hold(self) -> None:
        """Mask in place what stages keep masked there."""
        for engine in self.engines:
            engine.hold()

    def count(self) -> None:
        """Count the entries of modules again, after some may have come or gone."""
        renew_layout(self.gaining)

    def masks(self) -> Iterator[tuple[BoundTarget, Tensor]]:
        """Yield each target that has a mask, with its buffer."""
        for engine in self.engines:
            yield from engine.masks()

    def qparams(self) -> list[tuple[BoundTarget, QParams]]:
        """Return the scales and zero points in force, by target."""
        return [one for engine in self.engines for one in engine.qparams()]

    def integers(self) -> list[tuple[BoundTarget, IntegerTensor]]:
        """Return the integers of every quantized parameter and buffer."""
        return [(bound, make()) for bound, make in self.making_integers()]

    def making_integers(self) -> list[tuple[BoundTarget, Callable[[], IntegerTensor]]]:
        """Return every quantized parameter and buffer with what computes its integers."""
        return [one for engine in self.engines for one in engine.integers()]

    def remarks(self) -> tuple[str, ...]:
        """Return what a report says of what is in force, as sentences."""
        return tuple(text for engine in self.engines for text in engine.remarks())

    def learned(self) -> dict[str, Tensor]:
        """Return what is learned, by method, target and name."""
        return {
            f"{engine.method}.{target}.{name}": leaf
            for engine in self.engines
            for (target, name), leaf in engine.learned().items()
        }

    def growing(self) -> tuple[int, ...]:
        """Return the stages, by index in the recipe, whose sparsity is still growing."""
        steps = self.context.steps
        return tuple(one for engine in self.engines for one in engine.growing(steps))

    def loss(self, batch: object = None) -> Tensor:
        """Return what the active stages add to the loss, and forget the forward pass.

        Args:
            batch: what losses that ask for it are given parts of, or None.
        """
        zero = torch.zeros((), device=first_device(self.model))
        self.engines.distillation.take_batch(batch)
        try:
            found = [one for engine in self.engines for one in engine.losses()]
        finally:
            for engine in self.engines:
                engine.forget()
        return sum(found, start=zero)

    def need_to_finish(self, call: str) -> None:
        """Refuse a call that needs everything of the recipe to be in force.

        Args:
            call: the method that was called.

        Raises:
            SessionError: a stage has not begun, or something must be called first.
            CalibrationError: a parameter to mask or to quantize is not finite.
        """
        need_all_begun(self.plan.recipe.stages, self.context.steps, call)
        for engine in self.engines:
            engine.need_to_finish(call)
        engines = self.engines
        need_finite((*engines.pruning.bound_targets, *engines.quantization.bound_targets))

    def need_to_give_back(self, call: str) -> None:
        """Refuse a call that would write a target's values into another module's parameter.

        Args:
            call: the method that was called.

        Raises:
            SessionError: a target's parameter has other holders than when it was attached.
        """
        if any(engine.has_written for engine in self.engines):
            self.places.sharing.need_unchanged_anywhere(call)

    @contextlib.contextmanager
    def dense(self) -> Iterator[None]:
        """Give the dense model inside the block."""
        try:
            for engine in self.engines:
                engine.release()
            with self.engines.distillation.resting(), suspended(self.attachments, self.model):
                yield
        finally:
            self.hold()

    def remove(self) -> None:
        """Remove everything from the model, which is dense again, bit for bit."""
        for engine in self.engines:
            engine.stop()
            engine.release()
        detach_instruments(self.attachments)
        # The later engines changed what the earlier ones had left.
        for engine in reversed(self.engines.all):
            engine.give_back()


def install(
    plan: Plan,
    model: nn.Module,
    teacher: nn.Module | None,
    *,
    example_inputs: Any = None,
    owners: Owners | None = None,
) -> Installation:
    """Bind a plan to a model and instrument it; an error leaves the model dense.

    Args:
        plan: the plan.
        model: the user's model.
        teacher: the teacher of distillation stages, or None.
        example_inputs: what to run the model with where a budget counts operations, or None.
        owners: what the plan was made with, if it was just made of this very model.

    Raises:
        AttachError: a module cannot be instrumented.
        BrokenPluginError: a plugin cannot be imported.
        PlanError: a stage asks its algorithm for something that it cannot do.
    """
    binding = bind(plan, model, owners=owners)
    context = Context(model, binding, teacher, count=_counts_of(plan, model, example_inputs))
    engines = make_engines(context)
    wanted = with_folds(wire(binding), binding)
    wanted = engines.quantization.with_padding(wanted, model)
    wanted = engines.distillation.with_inputs(wanted, model)
    modules = binding.owners.universe.modules
    attachments = attach_instruments(with_encoders(wanted, modules), binding.name_of)
    sharing = Sharing(binding.owners, attachments)
    places = Places(binding.owners.universe, attachments, sharing)
    found = Installation(plan, model, context, engines, attachments, places)
    try:
        keep_fused_layers_off(modules, attachments)
        for engine in engines:
            engine.start(0)
        gaining = place_layout(one for engine in engines for one in engine.gaining())
    except BaseException:
        found.remove()
        raise
    return attrs.evolve(found, gaining=gaining)


def _counts_of(plan: Plan, model: nn.Module, example_inputs: Any) -> CountsShrunk | None:
    """Return what counts masks where a budget asks for it and the model can be run, or None."""
    if example_inputs is None or not is_counted(plan):
        return None
    return CountsShrunk.of(model, example_inputs)
