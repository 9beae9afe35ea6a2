"""Factors of inputs, folded permanently into what produces those inputs (rule Q4.5)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import attrs
import torch
from torch import Tensor, nn

from tersely.arithmetic.qparams import QParams
from tersely.engine.targets.binding import BoundTarget
from tersely.quantization.factors.output_forms import divided
from tersely.quantization.factors.producers import Found, Producer
from tersely.quantization.integers import IntegerTensor
from tersely.quantization.scale_buffers import read_buffer


@attrs.frozen(eq=False)
class Folding:
    """Factors that one module takes from the weights that read its output.

    Attributes:
        producer: the module, whose output channels are divided by the factors.
        targets: the weights, which are multiplied by them.
        factors: shape (channels,).
    """

    producer: Producer
    targets: tuple[BoundTarget, ...]
    factors: Tensor

    def makes(self, bound: BoundTarget) -> bool:
        """Tell whether a parameter is one of the producer, whose output channels are divided.

        Args:
            bound: any target.
        """
        form = self.producer.form
        is_own = bound.module is self.producer.module and not bound.is_activation
        return is_own and bound.plan.target in (form.weight, form.bias)

    def divide(self, integers: Sequence[tuple[BoundTarget, IntegerTensor]]) -> None:
        """Divide the output channels of the producer, whose values are finished otherwise.

        Args:
            integers: those of all targets, as they are once everything is folded.
        """
        module = self.producer.module
        self.producer.form.multiply(module, self.factors.double().reciprocal())
        for bound, tensor in integers:
            if self.makes(bound):
                bound.write(tensor.dequantize())


def foldings_of(
    found: Found,
    qparams: Sequence[tuple[BoundTarget, QParams]],
) -> tuple[list[Folding], dict[BoundTarget, str]]:
    """Return which factors `finalize` folds, and why it divides out the others.

    Args:
        found: what can take the factors of each weight.
        qparams: the parameters in force.
    """
    makers: dict[nn.Module, Producer] = {}
    weights: dict[nn.Module, list[BoundTarget]] = {}
    reasons: dict[BoundTarget, str] = {}
    for bound, producer in found.items():
        if read_buffer(bound, "input_scale") is None:
            continue
        if isinstance(producer, str):
            reasons[bound] = producer
        else:
            makers[producer.module] = producer
            weights.setdefault(producer.module, []).append(bound)
    folded = []
    for module, bound_targets in weights.items():
        one = Folding(makers[module], tuple(bound_targets), _factors(bound_targets[0]))
        reason = _obstacle(one, qparams)
        if reason is None:
            folded.append(one)
        else:
            reasons.update((bound, reason) for bound in bound_targets)
    return folded, reasons


def _factors(bound: BoundTarget) -> Tensor:
    factors = read_buffer(bound, "input_scale")
    assert factors is not None  # the caller has checked
    return factors


def _obstacle(
    one: Folding,
    qparams: Sequence[tuple[BoundTarget, QParams]],
) -> str | None:
    producer = one.producer
    if any(not torch.equal(_factors(bound), one.factors) for bound in one.targets):
        return f"weights that read {producer.name} have different factors"
    form = producer.form
    if not form.fits(producer.module, one.factors.shape[-1]) or not form.allows(one.factors):
        return f"{producer.name} has changed its shape since it was found"
    for bound, parameters in qparams:
        if one.makes(bound) and _divided(bound, parameters, one) is None:
            return (
                f"{bound.plan.name} produces it, but its output channels share a scale; "
                "granularity: per_channel gives each its own"
            )
    return None


def _divided(bound: BoundTarget, qparams: QParams, one: Folding) -> QParams | None:
    rank, form = len(bound.plan.shape or ()), one.producer.form
    factors = form.of_outputs(one.factors)
    dim = form.dim if bound.plan.target == form.weight else factors.ndim - 1
    return divided(qparams, factors, dim=dim, rank=rank)


def finished_qparams(
    qparams: Sequence[tuple[BoundTarget, QParams]], foldings: Sequence[Folding]
) -> list[tuple[BoundTarget, QParams]]:
    """Return the parameters in force once factors are folded.

    Args:
        qparams: the parameters in force.
        foldings: what is folded.
    """
    found = []
    for bound, parameters in qparams:
        one = next((one for one in foldings if one.makes(bound)), None)
        new = None if one is None else _divided(bound, parameters, one)
        found.append((bound, new or parameters))
    return found


def finished_integers(
    integers: Sequence[tuple[BoundTarget, IntegerTensor]], foldings: Sequence[Folding]
) -> list[tuple[BoundTarget, IntegerTensor]]:
    """Return the integers as finished weights are read from them.

    Weights whose factors are folded need none any more, the others are divided by theirs.

    Args:
        integers: the integers of every quantized parameter and buffer.
        foldings: what is folded.
    """
    free = {bound for one in foldings for bound in one.targets}
    found = []
    for bound, tensor in integers:
        one = next((one for one in foldings if one.makes(bound)), None)
        new = None if one is None else _divided(bound, tensor.qparams, one)
        if new is not None:
            tensor = attrs.evolve(tensor, qparams=new)  # noqa: PLW2901  # the same integers
        factors = None if bound in free else tensor.input_scale
        is_divided = factors is not None
        found.append((bound, attrs.evolve(tensor, input_scale=factors, divides_weight=is_divided)))
    return found


def described(foldings: Sequence[Folding], reasons: Mapping[BoundTarget, str]) -> list[str]:
    """Return what `finalize` does with each factor, as sentences.

    Args:
        foldings: what is folded.
        reasons: weight -> why its factors are divided out again.
    """
    found = [
        f"{', '.join(bound.plan.name for bound in one.targets)}: finalize() folds the factors of "
        f"the input into {one.producer.title(one.factors.shape[-1])}"
        for one in foldings
    ]
    by_reason: dict[str, list[str]] = {}
    for bound, reason in reasons.items():
        by_reason.setdefault(reason, []).append(bound.plan.name)
    return [
        *found,
        *(
            f"{', '.join(names)}: finalize() divides the factors of the input out again, because "
            f"{reason}"
            for reason, names in by_reason.items()
        ),
    ]
