"""The part of a session that shows what is in force."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from tersely.arithmetic.qparams import QParams
from tersely.calibration.statistic import sample_shape
from tersely.engine.binding import Handle
from tersely.engine.by_target import by_target
from tersely.planning.plan import Plan
from tersely.pruning.engine import Pruning
from tersely.pruning.mask_buffers import full_mask, is_kept, mask_of, masked_share
from tersely.quantization.engine import Quantization
from tersely.quantization.integers import IntegerTensor
from tersely.session.order import State, need_values
from tersely.session.periods import waiting_stages


class Shown:
    """Masks, scales, integers and the report; inherited by sessions and nothing else."""

    plan: Plan
    steps: int
    _state: State
    _pruning: Pruning
    _quantization: Quantization
    _baked: dict[Handle, Tensor]
    _baked_qparams: list[tuple[Handle, QParams]]
    _baked_integers: list[tuple[Handle, IntegerTensor]]

    def masks(self) -> dict[str, dict[str, Tensor]]:
        """Return {module: {target: mask}} for every target that has one.

        Returns:
            Bool tensors, True = kept, the target's full shape; for inputs and outputs the shape
            of one sample. They are copies.
        """
        return by_target(
            (handle.plan, full_mask(handle, kept, sample_shape(self._pruning.statistics, handle)))
            for handle, kept in self._kept("masks")
        )

    def qparams(self) -> dict[str, dict[str, QParams]]:
        """Return {module: {target: QParams}} for every quantized target.

        Returns:
            Copies of what is in force; inputs and outputs that are quantized by each call's own
            values have none.
        """
        need_values(self._state, "qparams")
        found = self._baked_qparams or self._quantization.qparams()
        return by_target((handle.plan, _copied(qparams)) for handle, qparams in found)

    def integer_weights(self) -> dict[str, dict[str, IntegerTensor]]:
        """Return {module: {target: IntegerTensor}} for every quantized parameter and buffer.

        Returns:
            The integers with their scales and zero points; ``dequantize()`` of each is the weight
            that forward computes with, bit for bit.
        """
        need_values(self._state, "integer_weights")
        found = self._baked_integers or self._quantization.integers()
        return by_target((handle.plan, integers) for handle, integers in found)

    def sparsity(self) -> dict[str, dict[str, float]]:
        """Return {module: {target: masked fraction of the target's elements}}."""
        masks = self._masks("sparsity")
        return by_target((handle.plan, masked_share(handle, mask)) for handle, mask in masks)

    @property
    def waiting(self) -> tuple[str, ...]:
        """Paths of the stages whose period has not begun, as in ``stages[1].quantization``."""
        stages = waiting_stages(self.plan.recipe.stages, self.steps)
        return tuple(stage.path for stage in stages)

    def growing_stages(self) -> tuple[int, ...]:
        """Return the stages, by index in the recipe, whose sparsity is still growing."""
        return self._pruning.growing(self.steps)

    def _kept(self, call: str) -> Iterator[tuple[Handle, Tensor]]:
        for handle, mask in self._masks(call):
            yield handle, is_kept(handle, mask)

    def _masks(self, call: str) -> Iterator[tuple[Handle, Tensor]]:
        need_values(self._state, call)
        for handle in self._pruning.handles:
            mask = self._baked.get(handle)
            mask = mask_of(handle) if mask is None else mask
            if mask is not None:
                yield handle, mask


def _copied(qparams: QParams) -> QParams:
    return qparams.evolve(
        scale=qparams.scale.detach().clone(), zero_point=qparams.zero_point.detach().clone()
    )
