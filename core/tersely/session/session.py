"""Session: the one mutable object, from an instrumented model to a finished one."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from tersely.arithmetic.qparams import QParams
from tersely.calibration.calibrate import calibrate
from tersely.calibration.kept_batches import need_kept_batches, release_batches
from tersely.calibration.statistic import sample_shape
from tersely.contracts.history import HistoryObserver, Observation
from tersely.document.recipe import Stage
from tersely.engine.context import Context
from tersely.engine.isolation.precision import no_inference_mode, plain_modes
from tersely.engine.observation.batches import Forward
from tersely.engine.observation.padding import PaddingMask
from tersely.engine.state.journal import Journal
from tersely.engine.targets.binding import BoundTarget
from tersely.engine.targets.by_target import by_target
from tersely.engine.targets.placing import placing
from tersely.errors import SessionError
from tersely.exporting.export import Exported, export_source, make_exporter
from tersely.exporting.program import make_program
from tersely.exporting.source import make_source
from tersely.instrument.masks.mask_values import guard_loading
from tersely.json_value import Json
from tersely.log import logger
from tersely.planning.plan import Plan
from tersely.planning.targets.owners import Owners
from tersely.pruning.mask_buffers import (
    full_mask,
    is_kept,
    masked_share,
    masked_shares,
    total_sparsity,
)
from tersely.quantization.integers import IntegerTensor
from tersely.registry.registry import registry
from tersely.reporting.describing.description import describe_session, warn_of_misses
from tersely.reporting.describing.emptied import warn_of_emptied
from tersely.reporting.report import Report
from tersely.session.engines import Engines
from tersely.session.finalizing.baking import warn_of_staying
from tersely.session.finalizing.finish import Finished, finish
from tersely.session.finalizing.stated_rounding import state_rounding
from tersely.session.installing import Installation, install
from tersely.session.observing import mask_values, range_values
from tersely.session.order import State, need_attached, need_values
from tersely.session.periods import (
    need_all_begun,
    need_begun_to_hand_over,
    need_no_stage_to_end,
    need_shrunk,
    shrink_options,
    stages_due_to_shrink,
    stages_to_shrink,
    task_loss_weight,
    waiting_stages,
)
from tersely.session.shrinking.installation import shrink_installed
from tersely.session.shrinking.small_model import kept_parameters
from tersely.session.state import SavedState, complete_state, understand
from tersely.session.teaching import need_teacher_to_run, run_teacher, write_targets
from tersely.shrinking.cutting.refusing import (
    need_plain_model,
)
from tersely.shrinking.report import Shrunk
from tersely.storage.only_writer import only_writer
from tersely.storage.session_folder import save_session
from tersely.storage.teacher_cache import TeacherCache, fingerprint_of, read_cache
from tersely.storage.versions import used_plugins
from tersely.storage.weights import save_weights


class Session:
    """An instrumented model: calibrate, compress, step, save, and finalize or detach.

    Make one with `tersely.attach`, `tersely.prune` or `tersely.load_session`.

    Attributes:
        model: the user's model, instrumented in place until `finalize` or `detach`.
        teacher: the teacher of distillation stages, or None.
        history: one mapping for each change of masks: step, event and total sparsity.
        metrics: name -> value; filled by jobs and shown in the report.
        example_inputs: what the model is run with when it is shrunk, or None.
    """

    def __init__(
        self,
        model: nn.Module,
        plan: Plan,
        *,
        teacher: nn.Module | None = None,
        example_inputs: Any = None,
        owners: Owners | None = None,
    ) -> None:
        self.model = model
        self.teacher = teacher
        self.history: list[dict[str, Json]] = []
        self.metrics: dict[str, float] = {}
        self.example_inputs = example_inputs
        self._cuts: list[dict[str, Json]] = []
        self._emptied: frozenset[str] = frozenset()
        self._shrinks: list[Shrunk] = []
        self._shrunk_paths: list[str] = []
        self._state: State = "attached"
        self._was_compressed = False  # of a session that is suspended
        self._teacher_cache: TeacherCache | None = None
        with no_inference_mode():
            self._installation = install(
                plan, model, teacher, example_inputs=example_inputs, owners=owners
            )
        self._values: Installation | Finished = self._installation
        self._observers: list[HistoryObserver] = []
        self._guard: RemovableHandle | None = guard_loading(model)
        logger(__name__).info("attached", targets=len(self.plan), stages=len(plan.recipe.stages))

    @property
    def plan(self) -> Plan:
        """The frozen plan, with the shapes of the model as it is now."""
        return self._installation.plan

    @property
    def _engines(self) -> Engines:
        return self._installation.engines

    @property
    def _context(self) -> Context:
        return self._installation.context

    def __repr__(self) -> str:
        return f"<tersely.Session {self._state}: {len(self.plan)} targets, step {self.steps}>"

    @property
    def is_compressed(self) -> bool:
        """Whether `compress` was called and the masks of all stages that have begun exist."""
        if self._state == "suspended":
            return self._was_compressed
        return all(engine.is_in_force for engine in self._engines)

    @property
    def steps(self) -> int:
        """How often `step` was called."""
        return self._context.steps

    @property
    def waiting(self) -> tuple[str, ...]:
        """Paths of the stages whose period has not begun, as in ``stages[1].quantization``."""
        stages = waiting_stages(self.plan.recipe.stages, self.steps)
        return tuple(stage.path for stage in stages)

    @property
    def remarks(self) -> tuple[str, ...]:
        """What the report says of what is in force, as sentences."""
        return self._values.remarks()

    @property
    def shrunk_stages(self) -> frozenset[int]:
        """The stages, by index in the recipe, of which masked slices were removed."""
        cut = {one["name"] for record in self._cuts for one in record["tensors"]}
        return frozenset(
            target.stage
            for target in self.plan
            if target.method == "pruning" and target.name in cut
        )

    def growing_stages(self) -> tuple[int, ...]:
        """Return the stages, by index in the recipe, whose sparsity is still growing."""
        return self._installation.growing()

    @property
    def to_shrink(self) -> tuple[str, ...]:
        """Paths of the stages that end with shrink and have not done so, due or not."""
        stages = stages_to_shrink(self.plan.recipe.stages, self._shrunk_paths)
        return tuple(stage.path for stage in stages)

    @property
    def due_to_shrink(self) -> tuple[str, ...]:
        """Paths of the stages whose end has come, and with it the time for `shrink`."""
        return tuple(stage.path for stage in self._due_to_shrink())

    @property
    def shrinks(self) -> tuple[Shrunk, ...]:
        """What each `shrink` so far removed."""
        return tuple(self._shrinks)

    def _due_to_shrink(self) -> list[Stage]:
        if not self.to_shrink or not self._engines.pruning.is_in_force:
            return []
        return stages_due_to_shrink(
            self.plan.recipe.stages,
            self.steps,
            done=self._shrunk_paths,
            growing=self.growing_stages(),
        )

    def calibrate(
        self,
        batches: Iterable[Any],
        *,
        forward: Forward | None = None,
        mask: PaddingMask | None = None,
    ) -> None:
        """Run the model under no_grad in eval mode and let algorithms observe.

        Args:
            batches: what to run; read once.
            forward: called as forward(model, batch). By default a tensor is the only argument, a
                tuple or list the positional arguments, a mapping the keyword arguments.
            mask: which positions of a batch are data: the key of a mapping, or called as
                mask(batch), a tensor of shape (batch, positions), 1 = data and 0 = padding, or
                None. By default a mapping's ``attention_mask``. Padding is not observed.

        Raises:
            CalibrationError: there was no batch, its mask is invalid, or a target that needs
                calibration was not seen or had values that are not finite; what was observed
                before is kept.
            SessionError: the session is finished.
        """
        need_attached(self._state, "calibrate")
        self._installation.places.need_unchanged("calibrate")
        with torch.inference_mode(False), placing(self.plan):
            calibrate(self._context, self._engines.all, batches, forward, mask=mask)
        logger(__name__).info("calibrated", step=self.steps)

    def compress(self) -> None:
        """Compute masks, then scales and zero points, and put them in force.

        If an error occurs, nothing has changed.

        With a schedule this is the state before its first update; `step` continues from there, and
        starts the stages whose period begins later.

        Raises:
            SessionError: something must be called first, and the text says what.
            CalibrationError: importances are not finite, or parameters.
            PlanError: the tensors do not fit the plan after all.
        """
        need_attached(self._state, "compress")
        self._installation.places.need_unchanged("compress")
        need_kept_batches(self._engines.all, self._context, "compress")
        self._context.example_inputs = self.example_inputs
        with plain_modes(), Journal() as journal:
            self._installation.note(journal)
            is_outdated = False
            for engine in self._engines:
                if is_outdated:
                    engine.outdate()
                with placing(self.plan, method=engine.method):
                    is_outdated = engine.compress(journal) or is_outdated
            self._installation.hold()
        self._installation.count()
        warn_of_misses(self, self._record("compress"))
        logger(__name__).info("compressed", step=self.steps)

    def step(self, *, optimizer: torch.optim.Optimizer | None = None) -> None:
        """Advance the clock by one optimizer step; call it after ``optimizer.step()``.

        A stage of the recipe that ends with ``shrink`` does so in the call that reaches its end, if
        the session has `example_inputs` and the optimizer is given; else call `shrink` before the
        next step.

        Args:
            optimizer: yours. It is not stepped; its state is cut when the model is shrunk.

        Raises:
            SessionError: `compress` was not called, the session is finished, or a stage has ended
                with shrink and the model could not be shrunk.
            CalibrationError: importances, ranges or parameters are not finite; neither clock nor
                masks have moved.
        """
        need_attached(self._state, "step")
        self._installation.places.need_unchanged("step")
        for engine in self._engines:
            engine.need_to_step()
        if self._due_to_shrink() and not self._shrink_by_itself(optimizer):
            need_shrunk(self._due_to_shrink(), self.steps, done=self._shrunk_paths, call="step")
        need_kept_batches(self._engines.all, self._context, "step")
        self._context.example_inputs = self.example_inputs
        steps = self.steps + 1
        is_beginning = any(stage.begin == steps for stage in self.plan.recipe.stages)
        with no_inference_mode(), Journal() as journal:
            if is_beginning:
                self._installation.note(journal, is_step=True)
            changed = []
            for engine in self._engines:
                with placing(self.plan, method=engine.method):
                    changed.append(engine.step(steps, journal))
            if is_beginning:
                self._installation.hold()
        self._installation.count()
        self._context.steps = steps
        if is_beginning:
            release_batches(self._engines.all, self._context)
        if is_beginning or any(changed):
            self._record("begin" if is_beginning else "step")
        if self._due_to_shrink():
            self._shrink_by_itself(optimizer)

    def _shrink_by_itself(self, optimizer: torch.optim.Optimizer | None) -> bool:
        if optimizer is None or self.example_inputs is None:
            return False
        self.shrink(optimizer=optimizer)
        return True

    def loss(self, *, batch: Any = None) -> Tensor:
        """Return the distillation and regularisation loss since the last call.

        Args:
            batch: the batch, for losses that ask for parts of it such as labels or the indices of
                samples: a mapping, a list or tuple, or an object with attributes.

        Returns:
            0-dim, float32, on the model's device; zero when no stage adds a loss.

        Raises:
            SessionError: a target of the student or the teacher was not seen since the last call,
                the two do not go together, or the batch lacks what a loss asks for.
        """
        need_attached(self._state, "loss")
        return self._installation.loss(batch)

    def total_loss(self, task_loss: Tensor, *, batch: Any = None) -> Tensor:
        """Return ``task_loss_weight * task_loss + session.loss(batch=batch)``.

        Args:
            task_loss: 0-dim, the user's own loss.
            batch: the batch, for losses that ask for parts of it; see `loss`.
        """
        weight = task_loss_weight(self.plan.recipe.stages, self.steps)
        loss = task_loss * weight + self.loss(batch=batch)
        for engine in self._engines:
            engine.look_at(loss)
        return loss

    def parameters(self) -> Iterator[Tensor]:
        """Return what algorithms learn besides the model's parameters, for an optimizer.

        From this call on the session no longer moves them itself: give them to your optimizer.
        """
        need_attached(self._state, "parameters")
        learning = [stage for engine in self._engines for stage in engine.learning_stages]
        need_begun_to_hand_over(learning, self.steps)
        return iter([leaf for engine in self._engines for leaf in engine.hand_over()])

    def learned(self) -> dict[str, Tensor]:
        """Return what algorithms learn besides the model's parameters, by name.

        The names are ``<method>.<target>.<what is learned>``, as in ``pruning.fc.weight.score`` and
        ``quantization.fc.weight.scale``; a projection is
        ``distillation.<student's target>><teacher's module>.weight`` or ``.bias``. They come in the
        order of `parameters`, and are the same after `tersely.load_session`.

        Returns:
            The tensors themselves, leaves that require a gradient; an algorithm or your optimizer
            changes them in place. What a stage learns exists from its beginning or from `compress`
            on, a projection from the first loss that needs it.

        Raises:
            SessionError: the session is finished or suspended.
        """
        need_attached(self._state, "learned")
        return self._installation.learned()

    def masks(self) -> dict[str, dict[str, Tensor]]:
        """Return {module: {target: mask}} for every target that has one.

        Returns:
            Bool tensors, True = kept, the target's full shape; for inputs and outputs the shape
            of one sample. They are copies.
        """
        statistics = self._engines.pruning.statistics
        return by_target(
            (bound.plan, full_mask(bound, kept, sample_shape(statistics, bound)))
            for bound, kept in self._kept("masks")
        )

    def sparsity(self) -> dict[str, dict[str, float]]:
        """Return {module: {target: masked fraction of the target's elements}}."""
        masks = self._masks("sparsity")
        return by_target((bound.plan, masked_share(bound, mask)) for bound, mask in masks)

    def input_orders(self) -> dict[str, dict[str, Tensor]]:
        """Return {module: {target: order}} where a mask has its pattern in that order alone.

        Returns:
            Shape (inputs,), int64: which input channel of the weight comes first, and so on. They
            are copies. A weight whose algorithm left its inputs in their own order has none.
        """
        need_values(self._state, "input_orders")
        orders = self._engines.pruning.orders
        return by_target((bound.plan, order.clone()) for bound, order in orders.items())

    def qparams(self) -> dict[str, dict[str, QParams]]:
        """Return {module: {target: QParams}} for every quantized target.

        Returns:
            Copies of what is in force; inputs and outputs that are quantized by each call's own
            values have none.
        """
        need_values(self._state, "qparams")
        found = self._values.qparams()
        return by_target((bound.plan, _copied(qparams)) for bound, qparams in found)

    def integer_weights(self) -> dict[str, dict[str, IntegerTensor]]:
        """Return {module: {target: IntegerTensor}} for every quantized parameter and buffer.

        Returns:
            The integers with their scales and zero points; ``dequantize()`` of each is the weight
            that forward computes with, bit for bit.
        """
        need_values(self._state, "integer_weights")
        return by_target((bound.plan, integers) for bound, integers in self._values.integers())

    def set_masks(self, masks: Mapping[str, Mapping[str, Tensor]], *, freeze: bool = False) -> None:
        """Put your own masks in force: mask more, or let masked weights grow back.

        Args:
            masks: {module: {target: mask}}, bool, True = kept, the target's shape or one that
                broadcasts to it. Targets that are aligned with these follow.
            freeze: whether algorithms and schedules leave these targets alone from now on; a
                target that is frozen already stays so either way.

        Raises:
            SessionError: there is no such target, or the mask does not fit it.
            CalibrationError: its parameter, or one that follows it, holds NaN or infinity.
        """
        need_attached(self._state, "set_masks")
        with no_inference_mode(), Journal() as journal:
            self._installation.note(journal)
            self._engines.pruning.set_masks(masks, journal, is_frozen=freeze)
        self._installation.count()
        self._record("set_masks")

    def set_qparams(
        self, qparams: Mapping[str, Mapping[str, QParams | None]], *, freeze: bool = False
    ) -> None:
        """Put your own scales and zero points in force; all of them or, after an error, none.

        `compress` keeps them and needs no calibration for these targets. Training continues from
        them: ranges of ``qat`` move, learned scales get these values in place and are learned.

        Args:
            qparams: {module: {target: QParams}}, with the plan's type and scheme and one scale for
                each block; as `qparams` returns them. None instead of QParams leaves a target to
                its algorithm again, from the next `compress` on.
            freeze: whether training leaves these scales alone too, which then quantize at once; a
                target that is frozen already stays so either way, until it is given None.

        Raises:
            SessionError: there is no such target, or what is given does not fit it.
            CalibrationError: its parameter holds NaN or infinity.
        """
        need_attached(self._state, "set_qparams")
        with no_inference_mode(), Journal() as journal:
            self._installation.note(journal)
            self._engines.quantization.set_qparams(qparams, is_frozen=freeze)
        self._installation.count()

    @property
    def frozen(self) -> tuple[str, ...]:
        """Full names of the targets whose masks only `set_masks` changes, in the plan's order."""
        pruning = self._engines.pruning
        return tuple(one.plan.name for one in pruning.bound_targets if one in pruning.frozen)

    def freeze(self, targets: Iterable[str] | None = None) -> None:
        """Keep masks as they are: algorithms and schedules leave these targets alone from now on.

        Args:
            targets: full names such as ``"layer1.weight"``; all by default.

        Raises:
            SessionError: there is no such target, or it has no mask yet.
        """
        need_attached(self._state, "freeze")
        self._engines.pruning.freeze(targets)

    def unfreeze(self, targets: Iterable[str] | None = None) -> None:
        """Let algorithms and schedules decide on targets again, at their next update.

        Args:
            targets: full names such as ``"layer1.weight"``; all by default.

        Raises:
            SessionError: there is no such target.
        """
        need_attached(self._state, "unfreeze")
        self._engines.pruning.unfreeze(targets)

    @property
    def needs_teacher(self) -> bool:
        """Whether the loss of the next step compares with the teacher."""
        return self._engines.distillation.needs_teacher

    def teacher_forward(self, *args: Any, **kwargs: Any) -> Any:
        """Run the teacher under no_grad in eval mode.

        Args:
            *args: the teacher's positional arguments.
            **kwargs: the teacher's keyword arguments.

        Raises:
            SessionError: the session has no teacher.
        """
        need_attached(self._state, "teacher_forward")
        return run_teacher(need_teacher_to_run(self.teacher), args, kwargs)

    def cache_teacher(
        self,
        batches: Iterable[Any],
        directory: str | os.PathLike[str],
        *,
        forward: Forward | None = None,
    ) -> None:
        """Run the teacher over all batches once and write what the student learns from.

        Args:
            batches: the batches of an epoch, in the order of the training loop.
            directory: a folder; a cache that is there is replaced.
            forward: called as forward(teacher, batch); see `calibrate`.

        Raises:
            SessionError: the session has no teacher, or a target of it was not seen.
            SessionFileError: the folder cannot be written.
        """
        need_attached(self._state, "cache_teacher")
        teacher = need_teacher_to_run(self.teacher)
        write_targets(self._engines.distillation, teacher, batches, directory, forward=forward)

    def use_teacher_cache(self, directory: str | os.PathLike[str]) -> TeacherCache:
        """Open a cache; `teacher_batch` then replaces `teacher_forward`.

        Args:
            directory: the folder that `cache_teacher` wrote.

        Raises:
            SessionFileError: there is no cache, it is damaged, or it was made with another config
                or, where the session has a teacher, with another teacher.
        """
        need_attached(self._state, "use_teacher_cache")
        fingerprint = fingerprint_of(self._engines.distillation.pairs, self.teacher)
        self._teacher_cache = read_cache(directory, fingerprint=fingerprint)
        return self._teacher_cache

    def teacher_batch(self, number: int) -> None:
        """Use the cached targets of one batch in place of the teacher's.

        Args:
            number: the batch's number in the epoch, from 0.

        Raises:
            SessionError: `use_teacher_cache` was not called.
            SessionFileError: there is no such batch, or its file is damaged.
        """
        need_attached(self._state, "teacher_batch")
        if self._teacher_cache is None:
            raise SessionError(
                "teacher_batch() has no cache to read; call session.use_teacher_cache(path) first"
            )
        self._engines.distillation.put_targets(self._teacher_cache.targets(number))

    def add_observer(self, observer: HistoryObserver) -> None:
        """Tell an observer from now on of every change of masks, and of what `note` is given.

        Args:
            observer: called in the thread that steps; what it raises reaches the caller.
        """
        self._observers.append(observer)

    def note(self, values: Mapping[str, float], *, epoch: int | None = None) -> None:
        """Give observers numbers of your own, such as losses, and the ranges of scales in force.

        Args:
            values: name -> number.
            epoch: the epoch, counted from 1.
        """
        need_values(self._state, "note")
        self._tell("note", values, epoch=epoch)

    def _tell(self, event: str, values: Mapping[str, float], *, epoch: int | None = None) -> None:
        if not self._observers:
            return
        values = {**values, **dict(range_values(self.qparams()))}
        observation = Observation(step=self.steps, event=event, epoch=epoch, values=values)
        for observer in self._observers:
            observer.observe(observation)

    def report(self) -> Report:
        """Return a report of what the session did, which prints and writes HTML."""
        need_values(self._state, "report")
        if self._state == "attached":
            self._installation.places.need_unchanged("report")
        return describe_session(self, self.sparsity())

    def save(self, directory: str | os.PathLike[str]) -> None:
        """Save the session, so that `tersely.load_session` continues it bit for bit.

        The model's weights are not in it: save them with your checkpoint. Those of a model that was
        shrunk are, masks applied, as ``model.safetensors``, for `tersely.load_shrunk`.

        Args:
            directory: a folder; a session saved there before is replaced atomically. Processes that
                save into the same folder do so one after another, and the last one's stays.

        Raises:
            SessionFileError: the folder cannot be written; what was there is untouched.
        """
        need_attached(self._state, "save")
        self._installation.places.need_unchanged("save")
        tensors, data = self.state()
        with only_writer(directory):
            if self._cuts:
                kept = kept_parameters(self._masks("save"))
                save_weights(self.model, directory, kept=kept)
            save_session(
                directory,
                tensors=tensors,
                data=data,
                plan=self.plan.to_dict(),
                recipe=dict(self.plan.recipe.document),
                plugins=used_plugins(self.plan),
            )
        logger(__name__).info("saved", path=str(directory), step=self.steps)

    def shrink(
        self,
        example_inputs: Any = None,
        *,
        optimizer: torch.optim.Optimizer | None = None,
        round_to: int | None = None,
        approximate: bool | None = None,
    ) -> Shrunk:
        """Remove what masks leave without effect, in place, and continue with the small model.

        Modules and parameters stay the same objects with smaller data. Masks that exist are frozen
        from now on. Tensors of `parameters()` are replaced, in `optimizer` too.

        Args:
            example_inputs: what to run the model with: a tensor, a tuple or list of arguments, or a
                mapping of keyword arguments; by default those that the session was attached with.
            optimizer: the user's; its state of each parameter is cut as well.
            round_to: how many rows and columns remain of a weight that loses some is a multiple of
                this, where there are enough; by default what the stages say that end here, else 1.
            approximate: whether to remove masked channels that hold a constant which no bias can
                take over exactly, as at a padded border; ``error`` of the result says what that
                changes. By default what the stages say that end here.

        Returns:
            What was removed, what stays and why.

        Raises:
            SessionError: nothing can be removed for a reason that concerns all of the model, or the
                small model does not compute what the masked one does. Nothing has changed.
        """
        need_attached(self._state, "shrink")
        self._installation.places.need_unchanged("shrink")
        need_plain_model(self.model)
        stages = self.plan.recipe.stages
        asked = shrink_options([one for one in stages if one.path in self.due_to_shrink])
        with no_inference_mode():
            found = shrink_installed(
                self._installation,
                self.example_inputs if example_inputs is None else example_inputs,
                optimizer=optimizer,
                round_to=asked.round_to if round_to is None else round_to,
                approximate=asked.approximate if approximate is None else approximate,
            )
        self._values = self._installation = found.installation
        self._cuts = [*self._cuts, *found.records]
        self._shrinks.append(found.shrunk)
        self._shrunk_paths += [
            one.path
            for one in stages_to_shrink(stages, self._shrunk_paths)
            if one.has_begun(self.steps)
        ]
        self._record("shrink")
        before, after = found.shrunk.parameters
        logger(__name__).info("shrunk", step=self.steps, parameters=after, before=before)
        return found.shrunk

    def export_program(
        self, example_inputs: Any, dynamic_shapes: Any = None
    ) -> torch.export.ExportedProgram:
        """Return the model as one program whose quantized weights are integers.

        Masks and folded norms are baked; quantized inputs and outputs are rounded with the scales
        in force. The session is not affected.

        Args:
            example_inputs: what to run the model with: a tensor, a tuple or list of arguments, or a
                mapping of keyword arguments.
            dynamic_shapes: which dimensions may differ: ``"batch"`` for the first one of every
                tensor, names such as ``{"tokens": ["batch", "time"]}``, or what
                ``torch.export.export`` takes; for one tensor its dimensions alone.

        Returns:
            A program that shares no memory with the model.

        Raises:
            ExportError: a target cannot be held, or ``torch.export`` cannot follow the model.
            SessionError: nothing is in force yet, or the session was detached.
        """
        self._need_to_export("export_program")
        return make_program(
            self.model,
            self._values.integers(),
            example_inputs,
            dynamic_shapes=dynamic_shapes,
            norms=self._values.norms,
        )

    def export(
        self,
        format: str,
        path: str | os.PathLike[str],
        *,
        example_inputs: Any = None,
        options: Mapping[str, Json] | None = None,
        dynamic_shapes: Any = None,
        check: bool = True,
    ) -> Exported:
        """Write the model in a format that another runtime reads; the session is not affected.

        Args:
            format: the exporter's name, as ``tersely plugins list`` shows it.
            path: the file or folder. What is there is replaced once the new one is whole.
            example_inputs: what to run the model with, see `export_program`; formats that store
                tensors alone need none.
            options: the exporter's own options.
            dynamic_shapes: which dimensions may differ: ``"batch"`` for the first one of every
                tensor, names such as ``{"tokens": ["batch", "time"]}``, or see `export_program`.
            check: whether to read the result with the format's consumer and compare it.

        Returns:
            The files, their size, and what was checked.

        Raises:
            ExportError: the format cannot hold a target, or its consumer computes something else.
                Nothing was written.
            PluginError: no plugin provides the format, or its exporter fails.
            ConfigError: the options are wrong.
            SessionError: nothing is in force yet, or the session was detached.
        """
        made = make_exporter(format, options)
        self._need_to_export("export")
        source = make_source(
            self.model,
            self._values.making_integers(),
            self.plan.targets,
            example_inputs=example_inputs,
            dynamic_shapes=dynamic_shapes,
            norms=self._values.norms,
            runtimes=tuple(
                dict.fromkeys(one.runtime for one in self.plan.recipe.stages if one.runtime)
            ),
        )
        return export_source(made, source, path, is_checked=check)

    def _need_to_export(self, call: str) -> None:
        need_values(self._state, call)
        if self._state == "attached":
            self._installation.places.need_unchanged(call)
            self._installation.need_to_finish(call)

    def finalize(self) -> nn.Module:
        """Bake masks into the parameters and give the model back as plain modules.

        The Parameter objects stay the same. An input or output mask cannot be baked into a
        plain module; such a module stays instrumented for it, with one warning.

        Returns:
            The model.

        Raises:
            SessionError: nothing is in force yet, or the session is finished.
            CalibrationError: a parameter to bake holds NaN or infinity.
        """
        need_attached(self._state, "finalize")
        self._installation.places.need_unchanged("finalize")
        stages = self.plan.recipe.stages
        need_all_begun(stages, self.steps, "finalize")
        need_shrunk(stages, self.steps, done=self._shrunk_paths, call="finalize")
        self._installation.need_to_finish("finalize")
        with no_inference_mode():
            self._values = finished = finish(self._installation)
        self._end("finalized")
        rounded = [bound for targets in finished.staying.values() for bound in targets]
        state_rounding(self.model, rounded, finished.qparams())
        logger(__name__).info("finalized", step=self.steps)
        warn_of_staying(finished.staying)
        registry().observe("tersely_finalized", session=self)
        return self.model

    @contextlib.contextmanager
    def suspended(self) -> Iterator[None]:
        """Make the model dense for a while: nothing is masked, quantized, folded or tapped.

        Parameters hold inside what they hold outside, and what is written into them stays, whatever
        else happens inside. The model is dense for all threads; nothing is exchanged between
        processes, so each may suspend for itself. A block inside another one does nothing.

        Raises:
            SessionError: the session is finished; or another session was attached to the model
                inside and did not end there.
        """
        if self._state == "suspended":
            yield
            return
        need_attached(self._state, "suspended")
        self._installation.need_to_give_back("suspended")
        self._was_compressed = self.is_compressed
        with self._installation.dense():
            self._state = "suspended"
            try:
                yield
            finally:
                self._state = "attached"

    def detach(self) -> nn.Module:
        """Remove everything tersely added and give the dense model back, bit for bit.

        Returns:
            The model.

        Raises:
            SessionError: the session was finalized, so the dense weights are gone; or they would
                be written into a parameter that was tied or untied while it was attached.
        """
        if self._state == "detached":
            return self.model
        need_attached(self._state, "detach")
        self._installation.need_to_give_back("detach")
        with no_inference_mode():
            self._installation.remove()
        self._end("detached")
        logger(__name__).info("detached", step=self.steps)
        return self.model

    def _end(self, state: State) -> None:
        if self._guard is not None:
            self._guard.remove()
            self._guard = None
        self._state = state

    def state(self) -> tuple[dict[str, Tensor], dict[str, Json]]:
        """Return everything that `restore` needs: tensors and JSON data."""
        need_attached(self._state, "state")
        state = SavedState(
            steps=self.steps,
            has_kept_batches=self._context.has_kept_batches,
            history=self.history,
            metrics=self.metrics,
            cuts=self._cuts,
            shrinks=self._shrinks,
            shrunk_paths=self._shrunk_paths,
            engines={engine.method: engine.save() for engine in self._engines},
        )
        return state.written(self._engines)

    def restore(self, tensors: Mapping[str, Tensor], data: Mapping[str, Json]) -> None:
        """Continue from a state that `state` returned.

        Args:
            tensors: its tensors.
            data: its JSON data.

        Raises:
            SessionFileError: the state belongs to another plan or model.
        """
        need_attached(self._state, "restore")
        state = understand(self._engines, tensors, data)
        need_no_stage_to_end(self.plan.recipe.stages, self.steps, state=state.steps)
        with no_inference_mode(), complete_state(), Journal() as journal:
            self._installation.note(journal)
            for engine in self._engines:
                engine.restore(state.engines[engine.method], state.steps, journal)
            self._installation.hold()
        self._installation.count()
        self._context.steps = state.steps
        self._context.has_kept_batches = state.has_kept_batches
        self.history, self.metrics, self._cuts = state.history, state.metrics, state.cuts
        self._shrinks, self._shrunk_paths = state.shrinks, state.shrunk_paths
        logger(__name__).info("restored", step=self.steps)

    def _kept(self, call: str) -> Iterator[tuple[BoundTarget, Tensor]]:
        for bound, mask in self._masks(call):
            yield bound, is_kept(bound, mask)

    def _masks(self, call: str) -> Iterator[tuple[BoundTarget, Tensor]]:
        need_values(self._state, call)
        yield from self._values.masks()

    def _record(self, event: str) -> dict[str, dict[str, float]]:
        masks = list(self._masks(event))
        bound_targets = [bound for bound, _ in masks]
        shares = masked_shares(masks)
        total = total_sparsity(zip(bound_targets, shares, strict=True))
        self.history.append({"step": self.steps, "event": event, "sparsity": total})
        logger(__name__).info("masks_updated", cause=event, step=self.steps, sparsity=total)
        plans = (bound.plan for bound in bound_targets)
        sparsity = by_target(zip(plans, shares, strict=True))
        is_by_hand = event == "set_masks"
        self._emptied = warn_of_emptied(
            self.plan, sparsity, known=self._emptied, is_by_hand=is_by_hand
        )
        if self._observers:
            self._tell(event, {"total_sparsity": total, **dict(mask_values(masks, shares))})
        registry().observe("tersely_masks_updated", session=self, sparsity=sparsity)
        return sparsity


def _copied(qparams: QParams) -> QParams:
    return qparams.evolve(
        scale=qparams.scale.detach().clone(),
        zero_point=qparams.zero_point.detach().clone(),
        levels=None if qparams.levels is None else qparams.levels.clone(),
    )
