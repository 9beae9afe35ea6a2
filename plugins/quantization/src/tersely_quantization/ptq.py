"""Post-training quantization from the observed range."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tersely
from tersely.contracts import ObservesRange
from tersely_quantization.bias_correction import InputMeans
from tersely_quantization.mapped_range import MapsRange
from tersely_quantization.observers import make_observer


class PostTraining(MapsRange, ObservesRange):
    """Map the range that calibration saw onto the integers.

    Jacob et al., "Quantization and Training of Neural Networks for Efficient
    Integer-Arithmetic-Only Inference", CVPR 2018, equation 1. Departs from it where the
    specification does: signed types are symmetric and leave out their lowest integer.

    Args:
        observer: what finds the range of the observed values.
        observer_options: the observer's options.
        bias_correction: whether biases make up for what rounding the weights shifts on average.
    """

    def __new__(
        cls,
        *,
        observer: str = "min_max",
        observer_options: Mapping[str, Any] | None = None,
        bias_correction: bool = False,
    ) -> PostTraining:
        """Make the quantizer, which observes inputs where it has to.

        Args:
            observer: see the class.
            observer_options: see the class.
            bias_correction: see the class.
        """
        # An ability is there when its methods are, so what the option adds is a class of its own.
        return super().__new__(_BiasCorrecting if bias_correction else cls)

    def __init__(
        self,
        *,
        observer: str = "min_max",
        observer_options: Mapping[str, Any] | None = None,
        bias_correction: bool = False,
    ) -> None:
        self.observer_name = observer
        self.observer_options = dict(observer_options or {})

    def __getnewargs_ex__(self) -> tuple[tuple[()], dict[str, Any]]:
        """Return what ``__new__`` needs, for copies and pickles of a model."""
        return (), {"bias_correction": isinstance(self, _BiasCorrecting)}

    def observer(self, target: tersely.QuantizationTarget) -> tersely.Observer:
        """Return the observer of one target's values."""
        return make_observer(self.observer_name, self.observer_options)


class _BiasCorrecting(InputMeans, PostTraining):
    """Post-training quantization that corrects biases."""
