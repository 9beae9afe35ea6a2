"""Finalizing a session: what was in force is baked into the model, and kept for inspection."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

import attrs
from torch import Tensor, nn

from tersely.arithmetic.qparams import QParams
from tersely.engine.targets.binding import BoundTarget
from tersely.instrument.modules.attaching import detach_instruments
from tersely.pruning.mask_buffers import is_kept
from tersely.quantization.factors.folding import finished_integers, finished_qparams
from tersely.quantization.folds import folds_of
from tersely.quantization.integers import IntegerTensor
from tersely.session.finalizing.baking import bake, keep_activations
from tersely.session.installing import Installation


@attrs.frozen(eq=False)
class Finished:
    """What a finished session shows of its former masks and scales.

    Attributes:
        staying: modules that stay instrumented, each with the targets it stays for.
        norms: layers into which a batch norm is folded, with the norm.
    """

    staying: Mapping[nn.Module, Sequence[BoundTarget]]
    norms: Mapping[nn.Module, nn.Module]
    _kept: Mapping[BoundTarget, Tensor]
    _qparams: Sequence[tuple[BoundTarget, QParams]]
    _integers: Sequence[tuple[BoundTarget, IntegerTensor]]
    _remarks: tuple[str, ...]

    def masks(self) -> Iterator[tuple[BoundTarget, Tensor]]:
        """Yield each target that had a mask, with what it kept."""
        yield from self._kept.items()

    def qparams(self) -> list[tuple[BoundTarget, QParams]]:
        """Return the scales and zero points that were in force, by target."""
        return list(self._qparams)

    def integers(self) -> list[tuple[BoundTarget, IntegerTensor]]:
        """Return the integers of every quantized parameter and buffer."""
        return list(self._integers)

    def making_integers(self) -> list[tuple[BoundTarget, Callable[[], IntegerTensor]]]:
        """Return every quantized parameter and buffer with what returns its integers."""
        return [(bound, partial(_same, tensor)) for bound, tensor in self._integers]

    def remarks(self) -> tuple[str, ...]:
        """Return what a report says of what was in force, as sentences."""
        return self._remarks


def finish(installation: Installation) -> Finished:
    """Bake what is in force into the model, and remove the instruments that need not stay.

    Args:
        installation: a plan on its model, ready to be finished.
    """
    engines = installation.engines
    foldings, _ = engines.quantization.foldings()
    kept = {bound: is_kept(bound, mask) for bound, mask in installation.masks()}
    remarks = installation.remarks()
    qparams = finished_qparams(installation.qparams(), foldings)
    integers = finished_integers(installation.integers(), foldings)
    bound_targets = (*engines.pruning.bound_targets, *engines.quantization.bound_targets)
    folds = {layer: fold for _, layer, fold in folds_of(installation.context.binding)}
    bake(bound_targets, folds, foldings=foldings)
    for folding in foldings:
        folding.divide(integers)
    staying = keep_activations(bound_targets)
    for engine in engines:
        engine.stop()
    detach_instruments(installation.attachments, keep=staying)
    norms = {layer: fold.norm for layer, fold in folds.items() if fold.norm is not None}
    return Finished(staying, norms, kept, qparams, integers, remarks)


def _same(tensor: IntegerTensor) -> IntegerTensor:
    return tensor
