"""The distillation of a session: taps in both models, and the loss between them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from tersely.distillation.calling import AskedLoss
from tersely.distillation.learning import Learning
from tersely.distillation.pairing import make_pairs
from tersely.distillation.pairs import Pair, Side, links_of
from tersely.distillation.projection import BIAS, WEIGHT, Projections, check_projections
from tersely.distillation.states import STATE, check_states
from tersely.distillation.teacher import listen, module_of, read_parameter
from tersely.document.recipe import Stage
from tersely.engine.context import Context
from tersely.engine.optimizing import step_optimizer
from tersely.engine.protocol import Engine
from tersely.engine.run import Run
from tersely.engine.state.cutting import FixedShapes, place_of
from tersely.engine.state.journal import Journal
from tersely.engine.state.saver import (
    MOVED,
    Grammar,
    Saved,
    moments_of,
    restore_moments,
)
from tersely.engine.targets.binding import first_device
from tersely.engine.targets.instrumenting import with_site
from tersely.errors import SessionError, SessionFileError
from tersely.instrument.instruments import Instruments
from tersely.instrument.modules.fused import encoders_around, keep_nested_tensors_out
from tersely.instrument.names import TAP
from tersely.instrument.tapping import Tap
from tersely.instrument.transforms import put


class Distillation(Engine[Run[Any]]):
    """All distillation stages of a session; mutable because taps fill and projections learn.

    Attributes:
        pairs: every student target with what it learns from.
        learning: the learned maps between widths, and the losses with state.
    """

    method = "distillation"
    grammar = Grammar("distillation.", {WEIGHT: False, BIAS: False, STATE: True, MOVED: True})

    def __init__(self, context: Context) -> None:
        super().__init__(context)
        self.learning = Learning()
        self._undoing: list[Callable[[], None]] = []  # a list, so that copies undo their own
        self._is_listening = False
        self._batch: object = None
        self.pairs = make_pairs(self.bound_targets, context.binding.plan.recipe.stages)

    def with_inputs(
        self, wanted: Mapping[nn.Module, Instruments], model: nn.Module
    ) -> dict[nn.Module, Instruments]:
        """Return instruments with taps on the inputs of the model that losses ask for.

        Args:
            wanted: what each module does otherwise.
            model: the student.
        """
        found = dict(wanted)
        for pair in self.pairs:
            for option, tap in pair.inputs.items():
                target = f"_input_{pair.loss.options[option]}"
                before = found.get(model, Instruments())
                found[model] = with_site(before, model, target, tap)
        return found

    def start(self, steps: int) -> None:
        """Put taps into the instrumented student and listen to the teacher, once.

        Raises:
            SessionError: a link is not a module of the teacher.
        """
        if self._is_listening:
            return
        self._is_listening = True
        teacher = self.context.teacher
        for side in self._sides():
            for module, attribute in side.bound.owners:
                put(module, attribute, (side.student,), place=TAP)
        if teacher is None:
            return
        linked = []
        for side, link, tap in links_of(self.pairs):
            linked.append(module_of(teacher, link, side.plan))
            self._undoing.append(listen(linked[-1], side.plan, tap).remove)
        encoders = list(encoders_around(list(teacher.modules()), set(linked)))
        self._undoing.append(keep_nested_tensors_out(encoders))

    @contextlib.contextmanager
    def resting(self) -> Iterator[None]:
        """Restore what taps hold after the block, whatever runs inside."""
        held = [(tap, tap.value, tap.problem) for tap in self._taps()]
        try:
            yield
        finally:
            for tap, value, problem in held:
                tap.value, tap.problem = value, problem

    def _taps(self) -> Iterator[Tap]:
        for pair in self.pairs:
            yield from pair.taps()

    def _sides(self) -> Iterator[Side]:
        for pair in self.pairs:
            yield from pair.sides

    def stop(self) -> None:
        """Stop listening and drop what was recorded."""
        while self._undoing:
            self._undoing.pop()()
        self.forget()
        self.learning = Learning()

    def forget(self) -> None:
        """Forget what taps hold, and the batch."""
        self._batch = None
        for tap in self._taps():
            tap.take()

    def take_batch(self, batch: object) -> None:
        """Keep a batch for the losses of this step that ask for parts of it.

        Args:
            batch: what the model was called with, labels and indices included, or None.
        """
        self._batch = batch

    @property
    def needs_teacher(self) -> bool:
        """Whether a loss that compares with the teacher is active."""
        return any(pair.needs_teacher for pair in self._running())

    def _running(self) -> list[Pair]:
        return [pair for pair in self.pairs if pair.stage.is_running(self.context.steps)]

    def losses(self) -> list[Tensor]:
        """Return lambda times loss of every pair whose stage is active.

        Raises:
            SessionError: a side of a pair was not seen since the last loss, or the tensors do not
                go together.
            PluginError: a loss failed.
        """
        pairs = self._running()
        self._read_parameters(pairs)
        for pair in pairs:
            missing = pair.missing(has_teacher=self.context.teacher is not None)
            if missing is not None:
                raise SessionError(missing, **pair.plan.place)
        return [pair.compute(self.learning, self._batch) for pair in pairs]

    def _read_parameters(self, pairs: Sequence[Pair]) -> None:
        teacher = self.context.teacher
        # A parameter is not called, so nothing flows through its tap: it is read when it counts.
        for side in (side for pair in pairs for side in pair.sides):
            if side.bound.is_activation:
                continue
            getattr(side.bound.module, side.plan.target)
            for link, tap in side.teachers.items():
                if teacher is not None:
                    tap.value = read_parameter(teacher, side.plan, link)

    def step(self, steps: int, journal: Journal) -> bool:
        """Move what is learned, unless the user's optimizer does; masks do not change."""
        if self.projections.optimizer is not None:
            step_optimizer(self.projections.optimizer)
        self.learning.states.share()
        return False

    @property
    def projections(self) -> Projections:
        """The learned maps between widths."""
        return self.learning.projections

    @property
    def _asked(self) -> dict[str, AskedLoss]:
        return {
            key: one.loss for one in self.pairs if one.loss.is_stateful for key in one.state_names
        }

    @property
    def learning_stages(self) -> list[Stage]:
        """The stages with a projection, or a loss with state."""
        return [
            pair.stage
            for pair in self.pairs
            if pair.projected_dim is not None or pair.loss.is_stateful
        ]

    def hand_over(self) -> list[Tensor]:
        """Return what is learned; from now on the user's optimizer moves it.

        Raises:
            SessionError: a projection is not made yet, because no batch was seen.
        """
        waiting = [pair for pair in self.pairs if self._is_waiting(pair)]
        if waiting and not self.projections.tensors:
            raise SessionError(
                f"the projection of {waiting[0].plan.name} is made when the first batch shows both "
                "widths; run the model, session.teacher_forward(...) and session.loss() once "
                "before session.parameters()",
                **waiting[0].plan.place,
            )
        for pair in self.pairs:
            if pair.loss.is_stateful and not any(
                key in self.learning.states.modules for key in pair.state_names
            ):
                raise SessionError(
                    f"what {pair.plan.algorithm} keeps of {pair.plan.name} is made when the first "
                    "batch shows the shapes; run the model, session.teacher_forward(...) and "
                    "session.loss() once before session.parameters()",
                    **pair.plan.place,
                )
        return self.learning.hand_over()

    def learned(self) -> dict[tuple[str, str], Tensor]:
        """Return what is learned, by ``student target>link`` and part."""
        return self.learning.learned()

    def note(self, journal: Journal, *, is_step: bool) -> None:
        """Note what is learned."""
        super().note(journal, is_step=is_step)
        projections = self.projections
        journal.note_attributes(projections, "tensors", "optimizer", "is_handed_over")
        journal.note_attributes(self.learning.states, "modules", "shapes")
        if is_step and projections.optimizer is not None:
            journal.note_optimizer(projections.optimizer)

    def save(self) -> Saved:
        """Return the projections and the losses with state, in the order they were made."""
        projections = self.projections
        parts = moments_of(projections.optimizer, self.learned())
        for (key, name), leaf in projections.learned().items():
            parts[name, key] = {"": leaf.detach().clone()}
        states, losses = self.learning.states.saved()
        data = {
            "projections": list(projections.tensors),
            "losses": losses,
            "handed_over": projections.is_handed_over,
        }
        return Saved({**parts, **states}, data)

    def fixed_shapes(self, saved: Saved) -> FixedShapes:
        """Keep the shape of what is compared with the teacher."""
        return {
            place_of(side.bound): f"{side.plan.name} is compared with the teacher"
            if side.teachers
            else f"{pair.plan.algorithm} keeps a state of {side.plan.name}"
            for pair in self.pairs
            for side in pair.sides
            if side.teachers or pair.loss.is_stateful
        }

    def known_names(self) -> set[str]:
        """Return the names that saved tensors can belong to: ``student target>link``."""
        return {f"{side.plan.name}>{link}" for side, link, _ in links_of(self.pairs)} | set(
            self._asked
        )

    def check(self, saved: Saved, steps: int) -> None:
        """Check a saved state before anything is changed."""
        super().check(saved, steps)
        projected = [pair for pair in self.pairs if pair.projected_dim is not None]
        asked = {f"{side.plan.name}>{link}" for side, link, _ in links_of(projected)}
        check_projections(asked, saved)
        check_states(saved, self._asked, self.known_names())

    def restore(self, saved: Saved, steps: int, journal: Journal) -> None:
        """Replace projections and losses with state by the saved ones."""
        projections = self.projections
        projections.tensors = {}
        projections.optimizer = None
        projections.is_handed_over = bool(saved.data["handed_over"])
        for key in saved.data["projections"]:
            weight, bias = saved.one(WEIGHT, key), saved.one(BIAS, key)
            if weight is None or bias is None:
                raise SessionFileError(f"the saved session lacks the projection {key}", target=key)
            device = first_device(self.context.model)
            projections.add(key, weight.to(device), bias.to(device))
        states = self.learning.states
        states.restore(saved, self._asked, first_device(self.context.model))
        projections.move(list(states.learned().values()))
        restore_moments(projections.optimizer, self.learned(), saved)

    def _is_waiting(self, pair: Pair) -> bool:
        return pair.projected_dim is not None and not any(
            f"{side.plan.name}>{link}" in self.projections.tensors
            for side, link, _ in links_of([pair])
        )

    def take_targets(self) -> dict[str, Tensor]:
        """Return what the teacher's taps hold, by ``student target>link``, and empty them.

        Raises:
            SessionError: a target of the teacher was not seen.
        """
        found = {}
        for side, link, tap in links_of(self.pairs):
            value = tap.take()
            if value is None:
                raise SessionError(
                    f"{side.teacher_name(link)} of the teacher was not seen: no batch reached "
                    "it, or something calls its module's forward without calling the module",
                    **side.plan.place,
                )
            found[f"{side.plan.name}>{link}"] = value
        return found

    def put_targets(self, targets: Mapping[str, Tensor]) -> None:
        """Fill the teacher's taps as if the teacher had run.

        Args:
            targets: what `take_targets` returned for the batch.

        Raises:
            SessionFileError: a target is missing, or there are others.
        """
        expected = {f"{side.plan.name}>{link}" for side, link, _ in links_of(self.pairs)}
        if other := sorted(expected ^ targets.keys()):
            raise SessionFileError(
                "the cache of the teacher has other targets for a batch than the session: "
                f"{other[0]!r} is {'missing' if other[0] in expected else 'unknown'}; write it "
                "again with session.cache_teacher(batches, path)",
                target=other[0],
            )
        for side, link, tap in links_of(self.pairs):
            tap.value = targets[f"{side.plan.name}>{link}"]
