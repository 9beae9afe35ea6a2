"""Checks of each ability that a quantizer declares."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import attrs
import torch
from torch import Tensor

from tersely.arithmetic.affine import fake_quantize
from tersely.arithmetic.blocks import count_blocks
from tersely.arithmetic.qparams import QParams
from tersely.contracts.quantized_forward import LearnsScales, Simulates
from tersely.contracts.quantized_weights import CorrectsBias, Equalizes, SolvesWeights
from tersely.contracts.quantizer import (
    FollowsTraining,
    ObservesRange,
    QuantizationTarget,
)
from tersely.engine.targets.binding import BoundTarget
from tersely.quantization.ranges import values_of
from tersely.quantization.returned_values import check_integers, check_simulated, check_solved
from tersely.quantization.run import QuantizationRun
from tersely.quantization.solving import choose
from tersely.quantization.targets import target_of
from tersely.testing.contract import as_findings, expect
from tersely.testing.models import contract_net
from tersely.testing.observations import check_observations_of_batches, observers
from tersely.testing.quantizers.sessions import QuantizerSessionChecks
from tersely.testing.tensors import as_leaves, expect_gradients, expect_tensors, unwritten

_PERTURBATIONS = (0.0, 0.3, -0.3, -100.0, 100.0)


@attrs.define(eq=False)
class QuantizerAbilityChecks(QuantizerSessionChecks):
    """Checks of abilities; one that is not declared passes."""

    def check_observations(self) -> None:
        """Observations add up or merge over batches, and observing does not modify the batch."""
        quantizer = self.make()
        for case in self._cases():
            check_observations_of_batches(quantizer, case.target)

    def check_observer(self) -> None:
        """A range observer merges batches of any size and does not modify the values."""
        quantizer = self.make()
        if not isinstance(quantizer, ObservesRange):
            return
        for case in self._cases():
            target = case.target
            observer, values = quantizer.observer(target), case.weight
            size = target.blocks.size
            with unwritten(values, f"{target.name}: the tensor"):
                known = observer.observe(values, size)
            twice = observer.merge(known, observer.observe(values, size))
            counts = count_blocks(size, values.shape)
            for statistics in (known, twice, observer.join([known, twice])):
                low, high = observer.range(statistics, target)
                for name, bound in (("low", low), ("high", high)):
                    is_right = bound.numel() == torch.Size(counts).numel()
                    expect(
                        is_right,
                        f"{target.name}: {name} has shape {list(bound.shape)}, expected "
                        f"{list(counts)}",
                    )
                    expect(
                        bool(bound.isfinite().all()),
                        f"{target.name}: {name} is not finite everywhere",
                    )
                expect(bool((low <= high).all()), f"{target.name}: low is greater than high")

    def check_following(self) -> None:
        """The settings of moving ranges in training are valid."""
        quantizer = self.make()
        if not isinstance(quantizer, FollowsTraining):
            return
        expect(0 <= quantizer.decay < 1, f"decay is {quantizer.decay}, expected a value in [0, 1)")
        expect(
            quantizer.start_step >= 0, f"start_step is {quantizer.start_step}, expected at least 0"
        )
        end = quantizer.freeze_step
        expect(end is None or end >= 0, f"freeze_step is {end}, expected at least 0")

    def check_simulation(self) -> None:
        """Simulated values keep shape and dtype, have gradients and match their integers."""
        quantizer = self.make()
        if not isinstance(quantizer, Simulates):
            return
        for case in self._cases():
            target = case.target
            value = case.weight
            qparams = case.chosen()
            for dtype in (torch.float32, torch.bfloat16):
                given = value.to(dtype).requires_grad_()
                found = quantizer.simulate(given, qparams, target)
                with as_findings():
                    check_simulated(found, given, target)
                expect(found.requires_grad, f"{target.name}: the value gets no gradient")
            with torch.no_grad():
                simulated = quantizer.simulate(value, qparams, target)
                integers, read = quantizer.integers(value, qparams, target)
            with as_findings():
                check_integers(integers, read, simulated, target)

    def check_learning(self) -> None:
        """Learned tensors start at the chosen scale, get gradients and keep valid values."""
        quantizer = self.make()
        if not isinstance(quantizer, LearnsScales):
            return
        for case in self._cases():
            target = case.target
            qparams = case.chosen()
            start = quantizer.start(qparams, target)
            expect_tensors(start, target.name)
            value, blind = case.weight, target.evolve(tensor=None)
            learned = as_leaves(start)
            found = quantizer.learned_values(value, qparams, learned, blind)
            with as_findings():
                check_simulated(found.detach(), value, target)
            torch.autograd.backward(found.square().sum())
            expect_gradients(learned, target.name)
            for shift in _PERTURBATIONS:
                moved = {name: tensor + shift for name, tensor in start.items()}
                self._check_meaning(quantizer, qparams, moved, case=case)

    def check_solving(self) -> None:
        """Solving does not modify the weight and returns finite values on the target's grid."""
        quantizer = self.make()
        if not isinstance(quantizer, SolvesWeights):
            return
        for case in self._cases():
            target = case.target
            weight = case.weight
            with torch.no_grad(), unwritten(weight, f"{target.name}: the weight"):
                solved = quantizer.solve(target)
            if solved is not None:
                with as_findings():
                    check_solved(solved, target)
                dtype = solved.tensor.dtype
                is_wide = torch.promote_types(dtype, weight.dtype) == dtype
                expect(
                    is_wide, f"{target.name}: the new values have dtype {dtype} and lose precision"
                )

    def check_equalizing(self) -> None:
        """Factors of input channels are finite and positive, one for each input."""
        quantizer = self.make()
        if not isinstance(quantizer, Equalizes):
            return
        for case in self._cases():
            target = case.target
            weight = case.weight
            with torch.no_grad(), unwritten(weight, f"{target.name}: the weight"):
                factors = quantizer.input_scales([target])
                expected = weight.shape[1]
                expect(
                    tuple(factors.shape) == (expected,),
                    f"{target.name}: factors have shape {list(factors.shape)}, expected "
                    f"[{expected}]",
                )
                is_positive = bool((factors.isfinite() & (factors > 0)).all())
                expect(is_positive, f"{target.name}: factors are not all finite and positive")
                solved = quantizer.solve_scaled(target, factors)
            with as_findings():
                check_solved(solved, target)

    def check_bias_correction(self) -> None:
        """A correction of the bias has one finite value for each output."""
        quantizer = self.make()
        if not isinstance(quantizer, CorrectsBias):
            return
        for case in self._cases():
            target = case.target
            weight = case.weight
            quantized = fake_quantize(weight, case.chosen())
            with torch.no_grad():
                found = quantizer.bias_correction(target, quantized)
            expected = (weight.shape[0],)
            expect(
                tuple(found.shape) == expected,
                f"{target.name}: the correction has shape {list(found.shape)}, expected "
                f"{list(expected)}",
            )
            expect(
                bool(found.isfinite().all()),
                f"{target.name}: the correction is not finite everywhere",
            )

    def _check_meaning(
        self,
        quantizer: LearnsScales,
        qparams: QParams,
        learned: Mapping[str, Tensor],
        *,
        case: _Case,
    ) -> None:
        target = case.target
        meaning = quantizer.meaning(qparams, learned)
        expect(isinstance(meaning, QParams), f"{target.name}: meaning() returned no QParams")
        is_positive = bool((meaning.scale.isfinite() & (meaning.scale > 0)).all())
        expect(
            is_positive, f"{target.name}: learned tensors can reach a scale that is not positive"
        )
        zero = meaning.zero_point.double()
        inside = (zero >= meaning.quant_min) & (zero <= meaning.quant_max) & (zero == zero.round())
        expect(
            bool(inside.all()), f"{target.name}: learned tensors can reach an invalid zero point"
        )
        with torch.no_grad():
            value = case.weight
            blind = target.evolve(tensor=None)
            found = quantizer.learned_values(value, qparams, learned, blind)
            same = torch.allclose(found, fake_quantize(value, meaning), rtol=1e-4, atol=1e-6)
        expect(same, f"{target.name}: learned_values() does not agree with the scales of meaning()")

    def _cases(self) -> Iterator[_Case]:
        session = self._calibrated(contract_net())
        (run,) = session._engines.quantization.runs
        return (_case(run, bound, self.make()) for bound in run.bound_targets)


@attrs.frozen(eq=False)
class _Case:
    """A calibrated weight of a contract net.

    Attributes:
        target: the weight as its algorithm receives it.
        chosen: the scale and zero point that the algorithm chooses for it.
    """

    target: QuantizationTarget
    chosen: Callable[[], QParams]

    @property
    def weight(self) -> Tensor:
        """The values; nothing may modify them."""
        assert self.target.tensor is not None  # a parameter
        return self.target.tensor


def _case(run: QuantizationRun, bound: BoundTarget, quantizer: object) -> _Case:
    tensor = values_of(bound).detach().clone()
    size = bound.plan.blocks.size if bound.plan.blocks else (-1,) * tensor.ndim
    observer = run.observer(bound)
    target = target_of(
        bound,
        run.grid(bound),
        tensor=tensor,
        observed=run.observed.get(bound),
        statistics=dict(observer.observe(tensor, size)),
    )
    if not target.observed:
        # Calibrated block by block: such a session observes only when it compresses.
        seen = [dict(observe(values, target)) for observe, values in observers(quantizer, target)]
        observed = {name: tensor for each in seen for name, tensor in each.items()}
        target = target.evolve(observed=observed)

    def chosen() -> QParams:
        low, high = observer.range(target.statistics, target)
        return choose(run, bound, low, high, target)

    return _Case(target, chosen)
