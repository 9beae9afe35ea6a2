"""What compressed models cost: operations, bytes or time, measured for each model."""

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
"""Seconds for which a latency is measured, in turns with the dense model."""

_BITS = 8

READINGS = 3
"""Parts in which a latency is measured; the median counts, so that one disturbance does not
matter."""

Reading: TypeAlias = Callable[[], float]
"""Called for one part of a measurement; returns the time of ``found`` divided by that of
``dense``."""

Stopwatch: TypeAlias = Callable[[Mapping[str, Callable[[], object]], int], Reading]
"""Called with ``dense`` and ``found`` and a number of threads."""


def timed(candidates: Mapping[str, Callable[[], object]], threads: int) -> Reading:
    """Prepare to measure the time of ``found`` divided by that of ``dense``, in turns.

    Args:
        candidates: the functions to call, ``dense`` first.
        threads: the number of PyTorch's threads.
    """
    return in_parts(candidates, threads=threads, seconds=SECONDS, parts=READINGS)


@attrs.frozen(kw_only=True, eq=False)
class Costing:
    """The cost that a search minimizes.

    Every cost is a share of the dense model's cost in the same runtime or format, so that gains of
    the runtime or format itself are not credited to compression.

    Attributes:
        objective: what is counted or measured.
        dense: the dense model, to whose cost others are compared.
        example_inputs: the inputs that models run with.
        consumer: the format whose files are measured, or None for the model itself.
        threads: the number of threads while time is measured.
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
            session: in force on a model of its own, from which this call removes masked channels.

        Raises:
            SessionError: it cannot be shrunk.
            ExportError: the export's format cannot hold the model.
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
        """Return the time of something divided by the dense model's, measured in turns.

        Args:
            found: the function to time, which runs in the consumer if there is one.
        """
        reading = self.reading(found)
        return statistics.median(reading() for _ in range(READINGS))

    def reading(self, found: Callable[[], object]) -> Reading:
        """Prepare to measure the time of something divided by the dense model's, in parts.

        Args:
            found: the function to time, which runs in the consumer if there is one.
        """
        run = self.dense if self.consumer is None else self.consumer.dense_run
        dense = partial(call_model, run, self.example_inputs)
        return self.stopwatch({"dense": dense, "found": found}, self.threads)


def need_cost(objective: Objective, plan: Plan, exports: Sequence[Export]) -> Export | None:
    """Return the export whose files are measured for an objective, or None for the model itself.

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
    """Tell whether a plan masks whole slices of weights, which shrinking can remove.

    Args:
        plan: a plan.
    """
    return any(map(is_structured, plan))


def shrink_masked(session: Session, example_inputs: Any) -> None:
    """Remove the slices that a session masks, if there are any.

    Args:
        session: in force.
        example_inputs: the inputs that its model runs with.

    Raises:
        SessionError: some are masked and cannot be removed.
    """
    masked = session.sparsity()
    for target in session.plan:
        if is_structured(target) and masked.get(target.module, {}).get(target.target, 0.0) > 0:
            session.shrink(example_inputs)
            return


def is_structured(target: TargetPlan) -> bool:
    """Tell whether whole slices of a target are masked by its own importances.

    Args:
        target: a planned target.
    """
    is_ranked = target.method == "pruning" and target.align is None
    return is_ranked and target.blocks is not None and -1 in target.blocks.size


def counted_bytes(session: Session) -> float:
    """Return the bytes of a session's model: integers in their own bits, with their scales.

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
    """Return the parameters and persistent buffers of a model, each once."""
    found: dict[int, Tensor | None] = {}
    for module in model.modules():
        for parameter in module._parameters.values():
            found[id(parameter)] = parameter
        for name, buffer in module._buffers.items():
            if name not in module._non_persistent_buffers_set and not name.startswith(PREFIX):
                found[id(buffer)] = buffer
    return [one for one in found.values() if one is not None]
