"""What compressed models cost: operations, bytes or time, measured on each one."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from typing import Any, Literal, TypeAlias

import attrs
from torch import Tensor, nn

from tersely.contracts.calling import call_arguments, call_model
from tersely.contracts.exporter import RunsExport
from tersely.contracts.target_plan import TargetPlan
from tersely.document.job import Export
from tersely.errors import ConfigError, Problem
from tersely.exporting.export import make_exporter
from tersely.instrument.names import PREFIX
from tersely.planning.plan import Plan
from tersely.reporting.measuring.benchmark import in_parts
from tersely.reporting.quantized_size import stored_bits
from tersely.searching.costs.consumer import Consumer
from tersely.session.session import Session
from tersely.shrinking.counting.counts import Counts, count, total

Objective: TypeAlias = Literal["macs", "bytes", "latency"]
"""What is minimized."""

SECONDS = 1.0
"""How long a time is measured, in turns with the dense model."""

_BITS = 8

READINGS = 3
"""In how many parts a time is measured; the median counts, so that no one disturbance decides."""

Reading: TypeAlias = Callable[[], float]
"""Called for one part of a measurement; returns what ``found`` takes over ``dense``."""

Stopwatch: TypeAlias = Callable[[Mapping[str, Callable[[], object]], int], Reading]
"""Called with ``dense`` and ``found`` and a number of threads."""


def timed(candidates: Mapping[str, Callable[[], object]], threads: int) -> Reading:
    """Prepare to measure how long ``found`` takes over ``dense``, in turns.

    Args:
        candidates: what to call, ``dense`` first.
        threads: how many threads PyTorch computes with.
    """
    return in_parts(candidates, threads=threads, seconds=SECONDS, parts=READINGS)


@attrs.frozen(kw_only=True, eq=False)
class Costing:
    """What a search makes small.

    Every cost is a share of what the dense model costs in the same place. So what a runtime gains
    by itself counts for no layer, nor what a format packs tighter.

    Attributes:
        objective: what is counted or measured.
        dense: the dense model, for what is seen as a share of its cost.
        example_inputs: what models are run with.
        consumer: the format whose files are measured, or None for the model itself.
        threads: how many threads time is measured with.
        stopwatch: measures time, in `READINGS` parts.
    """

    objective: Objective
    dense: nn.Module
    example_inputs: Any
    consumer: Consumer | None = None
    threads: int = 1
    stopwatch: Stopwatch = timed

    def share_of(self, session: Session) -> float:
        """Return a compressed model's cost as a share of the dense model's.

        Args:
            session: in force on a model of its own, from which masked channels are removed here.

        Raises:
            SessionError: it cannot be shrunk.
            ExportError: the export's format cannot hold it.
        """
        shrink_masked(session, self.example_inputs)
        if self.objective == "macs":
            return self._count(session.model).macs / self._dense_macs
        if self.objective == "bytes":
            return self._bytes(session)
        return self._time(session)

    @cached_property
    def _dense_macs(self) -> int:
        return self._count(self.dense).macs

    def _count(self, model: nn.Module) -> Counts:
        args, kwargs = call_arguments(self.example_inputs)
        return total(count(model, args, kwargs))

    def _bytes(self, session: Session) -> float:
        dense = sum(one.numel() * one.element_size() for one in _tensors(self.dense))
        if self.consumer is None:
            return counted_bytes(session) / dense
        return self.consumer.bytes_of(session) / (self.consumer.dense_bytes or dense)

    def _time(self, session: Session) -> float:
        if self.consumer is None:
            return self.ratio(partial(call_model, session.finalize(), self.example_inputs))
        shapes = self.consumer.export.dynamic_shapes
        with self.consumer.scratch() as folder:
            run = self.consumer.run_session(session, self.example_inputs, folder, shapes)
            return self.ratio(partial(call_model, run, self.example_inputs))

    def ratio(self, found: Callable[[], object]) -> float:
        """Return how long something takes over the dense model, measured in turns.

        Args:
            found: what is timed, in the consumer where there is one.
        """
        reading = self.reading(found)
        return statistics.median(reading() for _ in range(READINGS))

    def reading(self, found: Callable[[], object]) -> Reading:
        """Prepare to measure how long something takes over the dense model, in parts.

        Args:
            found: what is timed, in the consumer where there is one.
        """
        run = self.dense if self.consumer is None else self.consumer.dense_run
        dense = partial(call_model, run, self.example_inputs)
        return self.stopwatch({"dense": dense, "found": found}, self.threads)


def need_cost(objective: Objective, plan: Plan, exports: Sequence[Export]) -> Export | None:
    """Return the export whose files show an objective, or None for the model itself.

    Args:
        objective: what is minimized.
        plan: the plan of the whole recipe.
        exports: the formats that the job writes.

    Raises:
        ConfigError: nothing that the recipe does changes the objective.
    """
    if objective == "bytes":
        return exports[0] if exports else None
    if objective == "latency":
        for one in exports:
            if isinstance(make_exporter(one.format, one.options).exporter, RunsExport):
                return one
    if has_structured_masks(plan):
        return None
    if objective == "macs":
        message = "nothing that the recipe does changes the number of macs"
        hint = "prune whole channels, as with granularity: out_channel, or search for bytes"
        raise ConfigError([Problem("recipe", message, hint)])
    message = "single weights that are masked and integers that are simulated save no time here"
    hint = "add a format that runs, such as export: [{format: onnx}]"
    raise ConfigError([Problem("export", message, hint)])


def has_structured_masks(plan: Plan) -> bool:
    """Tell whether a plan masks whole slices of weights, which shrinking removes.

    Args:
        plan: a plan.
    """
    return any(map(is_structured, plan))


def shrink_masked(session: Session, example_inputs: Any) -> None:
    """Remove the slices that a session masks, if there are any.

    Args:
        session: in force.
        example_inputs: what its model is run with.

    Raises:
        SessionError: some are masked, and cannot be removed.
    """
    masked = session.sparsity()
    for target in session.plan:
        if is_structured(target) and masked.get(target.module, {}).get(target.target, 0.0) > 0:
            session.shrink(example_inputs)
            return


def is_structured(target: TargetPlan) -> bool:
    """Tell whether whole slices of a target are masked, by importances of its own.

    Args:
        target: a planned target.
    """
    is_ranked = target.method == "pruning" and target.align is None
    return is_ranked and target.blocks is not None and -1 in target.blocks.size


def counted_bytes(session: Session) -> float:
    """Return what a session's model takes: integers in their own bits, with their scales.

    Args:
        session: in force.
    """
    quantized: set[int] = set()
    bits = 0
    for module, targets in session.integer_weights().items():
        for name, integers in targets.items():
            owner = session.model.get_submodule(module)
            held = owner._parameters if name in owner._parameters else owner._buffers
            quantized.add(id(held[name]))
            qparams = integers.qparams
            bits += stored_bits(
                qparams.dtype,
                elements=integers.values.numel(),
                scales=qparams.scale.numel(),
                affine=qparams.scheme == "affine",
            )
    rest = (one for one in _tensors(session.model) if id(one) not in quantized)
    return bits / _BITS + sum(one.numel() * one.element_size() for one in rest)


def _tensors(model: nn.Module) -> list[Tensor]:
    """Return the parameters of a model, and the buffers that a checkpoint holds, each once."""
    found: dict[int, Tensor | None] = {}
    for module in model.modules():
        for parameter in module._parameters.values():
            found[id(parameter)] = parameter
        for name, buffer in module._buffers.items():
            if name not in module._non_persistent_buffers_set and not name.startswith(PREFIX):
                found[id(buffer)] = buffer
    return [one for one in found.values() if one is not None]
