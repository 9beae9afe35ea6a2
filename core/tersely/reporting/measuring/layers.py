"""What became of each layer: its error on the dense layer's inputs, and its weights.

A layer of the compressed model is called with the inputs that the same layer of the dense model
gets, so its error is its own and not that of the layers before it:

    signal-to-noise = 10 log10(sum(y ** 2) / sum((y - z) ** 2)) decibels, over all calls, where y is
                      what the dense layer returns and z what the compressed one does
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from tersely.contracts.calling import call_model
from tersely.instrument.modules.classes import instruments_of
from tersely.instrument.names import INSTRUMENTS
from tersely.reporting.rows import BINS, Layer
from tersely.shrinking.counting.counts import operation_counter

_SAMPLED = 65_536
"""How many values of a weight a histogram counts; a larger weight is sampled evenly."""


def compare_layers(
    dense: nn.Module, compressed: nn.Module, weights: Mapping[str, str], batch: Any
) -> tuple[Layer, ...]:
    """Return what became of modules; both models are left as they were.

    Args:
        dense: the model before compression.
        compressed: the model with everything in force, not finalized.
        weights: module -> the parameter to count, or empty for none.
        batch: example inputs of the model.
    """
    found = []
    errors = _errors(dense, compressed, weights, batch)
    # In training, a weight that is read moves the range of quantization-aware training.
    with _Evaluating(dense, compressed):
        for name, weight in weights.items():
            own = _submodule(dense, name)
            layer = Layer(module=name, kind=type(own).__name__ if own is not None else "")
            if own is not None and weight:
                layer = _with_histogram(layer, own, _submodule(compressed, name), weight)
            found.append(errors[name].noted(layer) if name in errors else layer)
    return tuple(found)


def count_macs(model: nn.Module, batch: Any) -> int:
    """Return how many multiply-accumulate operations a call takes, as PyTorch counts them.

    Args:
        model: the model; it is called in evaluation mode.
        batch: example inputs.
    """
    counter = operation_counter()
    with _Evaluating(model), counter:
        call_model(model, batch)
    return int(counter.get_total_flops()) // 2


def largest_weights(names: Sequence[tuple[str, str, int]]) -> dict[str, str]:
    """Return module -> its largest parameter among the targets, or empty where it has none.

    Args:
        names: module, target and number of elements; no elements for anything but a parameter.
    """
    largest: dict[str, tuple[str, int]] = {}
    for module, target, elements in names:
        if elements > largest.setdefault(module, ("", 0))[1]:
            largest[module] = (target, elements)
    return {module: target for module, (target, _) in largest.items()}


class _Evaluating:
    """Evaluation mode without gradients for a while; every module's own mode comes back."""

    def __init__(self, *models: nn.Module) -> None:
        self._modes = [(one, one.training) for model in models for one in model.modules()]
        self._no_grad = torch.no_grad()

    def __enter__(self) -> None:
        self._no_grad.__enter__()
        for module, _ in self._modes:
            module.training = False

    def __exit__(self, *error: Any) -> None:
        for module, mode in self._modes:
            module.training = mode
        self._no_grad.__exit__(*error)


@attrs.define(eq=False)
class _Error:
    """Sums over the calls of one layer, which grow while the dense model runs."""

    signal: float = 0.0
    noise: float = 0.0
    calls: int = 0
    why: str = ""
    output: Any = None

    def add(self, dense: Any) -> None:
        if self.why:
            return
        pairs = list(zip(_floats(dense), _floats(self.output), strict=False))
        if not pairs or any(one.shape != other.shape for one, other in pairs):
            self.why = "its outputs have other shapes now"
            return
        self.calls += 1
        for one, other in pairs:
            exact = one.double()
            self.signal += float(exact.square().sum())
            self.noise += float((exact - other.double()).square().sum())

    def noted(self, layer: Layer) -> Layer:
        if self.why or not self.calls:
            return attrs.evolve(layer, why=self.why or "the example does not call it")
        if self.noise == 0.0:
            return attrs.evolve(layer, is_exact=True)
        if not (math.isfinite(self.noise) and self.signal > 0.0):
            return attrs.evolve(layer, why="its outputs are zero or not finite")
        decibels = 10 * math.log10(self.signal / self.noise)
        return attrs.evolve(layer, signal_to_noise=round(decibels, 2))


def _errors(
    dense: nn.Module, compressed: nn.Module, names: Mapping[str, str], batch: Any
) -> dict[str, _Error]:
    errors: dict[str, _Error] = {}
    handles = []
    for name in names:
        own, other = _submodule(dense, name), _submodule(compressed, name)
        if own is None or other is None:
            continue
        error = errors[name] = _Error(why=_obstacle(own, other))
        if not error.why:
            handles.append(own.register_forward_pre_hook(_calling(other, error), with_kwargs=True))
            handles.append(own.register_forward_hook(_comparing(error)))
    try:
        with _Evaluating(dense, compressed):
            call_model(dense, batch)
    finally:
        for handle in handles:
            handle.remove()
    return errors


def _calling(other: nn.Module, error: _Error) -> Any:
    def call(_: nn.Module, args: Any, kwargs: Any) -> None:
        if error.why:
            return
        args, kwargs = tree_map(_copied, (args, kwargs))
        try:
            error.output = other(*args, **kwargs)
        except Exception as failure:  # the user's module runs where it was not meant to
            error.why = f"it cannot be called alone: {failure}".splitlines()[0]

    return call


def _comparing(error: _Error) -> Any:
    def compare(_: nn.Module, __: Any, output: Any) -> None:
        error.add(output)
        error.output = None

    return compare


def _obstacle(dense: nn.Module, compressed: nn.Module) -> str:
    instruments = instruments_of(compressed) if INSTRUMENTS in compressed.__dict__ else None
    if instruments is not None and (instruments.fold is not None or instruments.is_folded):
        return "it computes together with the layers that are folded into it"
    shapes = [
        {name: tuple(one.shape) for name, one in module.named_parameters()}
        for module in (dense, compressed)
    ]
    if any(shapes[1].get(name, shape) != shape for name, shape in shapes[0].items()):
        return "it is smaller now"
    return ""


def _copied(leaf: Any) -> Any:
    return leaf.clone() if isinstance(leaf, Tensor) else leaf  # the module may write into it


def _floats(values: Any) -> list[Tensor]:
    return [
        leaf
        for leaf in tree_leaves(values)
        if isinstance(leaf, Tensor) and leaf.is_floating_point()
    ]


def _submodule(model: nn.Module, name: str) -> nn.Module | None:
    try:
        return model.get_submodule(name)
    except AttributeError:
        return None


def _with_histogram(
    layer: Layer, dense: nn.Module, compressed: nn.Module | None, weight: str
) -> Layer:
    before = getattr(dense, weight, None)
    after = getattr(compressed, weight, None)
    if not isinstance(before, Tensor) or not isinstance(after, Tensor):
        return layer
    if not before.numel() or not before.is_floating_point():
        return layer
    first, second = _sampled(before), _sampled(after)
    second = second[second != 0]
    both = torch.cat([first, second])
    both = both[both.isfinite()]
    low, high = (float(both.min()), float(both.max())) if both.numel() else (0.0, 0.0)
    counts = [
        torch.histc(one, BINS, low, high).int().tolist() if low < high else [0] * BINS
        for one in (first, second)
    ]
    return attrs.evolve(layer, weight=weight, low=low, high=high, before=counts[0], after=counts[1])


def _sampled(weight: Tensor) -> Tensor:
    values = weight.detach().flatten()
    return values[:: -(-values.numel() // _SAMPLED)].float().cpu()
