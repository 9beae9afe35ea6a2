"""Hooks through which algorithms see the inputs and outputs of modules, padding left out."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from tersely.contracts.abilities import ObservesInputs, ObservesOutputs
from tersely.contracts.quantizer import MergesObservations
from tersely.engine.isolation.foreign import ForeignCall
from tersely.engine.isolation.precision import full_precision
from tersely.engine.observation.padding import data_of, is_channels_first
from tersely.engine.observation.sums import add_sums
from tersely.engine.observation.watch import Watch
from tersely.errors import CalibrationError


class SharedInputs:
    """Which input was just observed, and into which sums; keeps the tensor and so its id."""

    def __init__(self) -> None:
        self.inputs: Tensor | None = None
        self.version = -1
        self.owner: Watch | None = None

    def take(self, watch: Watch, inputs: Tensor) -> Watch | None:
        """Return what has observed this very tensor for the same algorithm, or None."""
        # Tensors made in inference mode do not count their versions, so those are never shared.
        version = -1 if inputs.is_inference() else inputs._version
        owner = self.owner
        if (
            owner is not None
            and version >= 0
            and self.inputs is inputs
            and self.version == version
            and owner.algorithm is watch.algorithm
            and type(owner.bound.module) is type(watch.bound.module)
            and isinstance(watch.bound.module, nn.Linear)
        ):
            return owner
        self.inputs, self.version, self.owner = inputs, version, watch
        return None


def see_inputs(
    watch: Watch, algorithm: ObservesInputs, shared: SharedInputs
) -> Callable[..., None]:
    """Return a hook before forward that lets an algorithm observe a module's first input.

    Args:
        watch: gets the sums.
        algorithm: what observes.
        shared: which input was observed last, so that one input is observed once.
    """

    def see(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        inputs = _first_tensor([*args, *kwargs.values()])
        if inputs is None:
            return
        watch.is_called = True
        owner = shared.take(watch, inputs)
        if owner is not None and (not watch.sums or watch.sums is owner.sums):
            watch.sums = owner.sums
            return
        with _naming(watch):
            for part in _data(watch, _observable(inputs)):
                _add(watch, algorithm.observe_input(part, watch.target))

    return see


def see_rows(
    watch: Watch, rows: Tensor, outputs: Callable[[], Tensor], target: Any
) -> Mapping[str, Tensor]:
    """Return what an algorithm observes of the rows that reached one expert.

    Args:
        watch: the watch of the expert's parameter.
        rows: shape (rows, features).
        outputs: makes what the expert's matrix makes of them, shape (rows, outputs).
        target: the expert's target as the algorithm sees it.
    """
    algorithm, found = watch.algorithm, dict[str, Tensor]()
    with _naming(watch):
        if isinstance(algorithm, ObservesInputs):
            found |= algorithm.observe_input(_observable(rows), target)
        if isinstance(algorithm, ObservesOutputs):
            found |= algorithm.observe_output(_observable(outputs()), target)
    return found


def see_outputs(watch: Watch, algorithm: ObservesOutputs) -> Callable[..., None]:
    """Return a forward hook that lets an algorithm observe a module's first output.

    Args:
        watch: gets the sums.
        algorithm: what observes.
    """

    def see(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        outputs = _first_tensor(_elements(output))
        if outputs is not None:
            watch.is_called = True
            with _naming(watch):
                for part in _data(watch, _observable(outputs)):
                    _add(watch, algorithm.observe_output(part, watch.target))

    return see


def _observable(values: Tensor) -> Tensor:
    # A tensor made in inference mode has no version counter, and cannot serve a gradient.
    return values.clone() if values.is_inference() else values.detach()


@contextlib.contextmanager
def _naming(watch: Watch) -> Iterator[None]:
    plan = watch.bound.plan

    def refusal(error: ValueError) -> CalibrationError:
        return CalibrationError(f"{plan.name}: {error}", **plan.place)

    failure = f"{plan.algorithm} failed to observe the module of {plan.name}"
    with (
        ForeignCall(failure, plugin=plan.algorithm, target=plan.name, refusal=refusal),
        full_precision(),
    ):
        yield


def _data(watch: Watch, value: Tensor) -> tuple[Tensor, ...]:
    module = watch.bound.module
    return data_of(value.detach(), is_channels_first=is_channels_first(None, module))


def _add(watch: Watch, part: Mapping[str, Tensor]) -> None:
    algorithm = watch.algorithm
    if not part:  # of a batch without rows there may be nothing to tell
        return
    if isinstance(algorithm, MergesObservations) and watch.sums:
        # In place: other targets may share the mapping.
        watch.sums.update(algorithm.merge(dict(watch.sums), part))
    else:
        add_sums(watch.sums, part)


def _elements(output: Any) -> list[Any]:
    if isinstance(output, Mapping):
        return list(output.values())
    return list(output) if isinstance(output, (list, tuple)) else [output]


def _first_tensor(values: Sequence[Any]) -> Tensor | None:
    return next((value for value in values if isinstance(value, Tensor)), None)
