"""Post-training quantization from the observed range."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import tersely
from tersely.contracts import ObservesRange
from tersely_quantization.mapped_range import MapsRange
from tersely_quantization.observers.by_name import make_observer
from tersely_quantization.solving.bias_correction import InputMeans


class PostTraining(MapsRange, ObservesRange):
    """Maps the range observed in calibration onto the integers.

    Jacob et al., "Quantization and Training of Neural Networks for Efficient
    Integer-Arithmetic-Only Inference", CVPR 2018, equation 1. Departs from the paper as the
    specification does: signed types are symmetric, without their lowest integer.

    Args:
        observer: the observer that determines ranges.
        observer_options: the observer's options.
        bias_correction: whether biases compensate for the mean error of rounding weights.
    """

    def __new__(
        cls,
        *,
        observer: str = "min_max",
        observer_options: Mapping[str, Any] | None = None,
        bias_correction: bool = False,
    ) -> PostTraining:
        """Make the quantizer, which observes inputs if it corrects biases.

        Args:
            observer: see the class.
            observer_options: see the class.
            bias_correction: see the class.
        """
        # An ability is declared by a class, so the option selects another class.
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
        """Return the arguments of ``__new__``, for copies and pickles of a model."""
        return (), {"bias_correction": isinstance(self, _BiasCorrecting)}

    def observer(self, target: tersely.QuantizationTarget) -> tersely.Observer:
        """Return the observer of one target's values."""
        return make_observer(self.observer_name, self.observer_options)


class _BiasCorrecting(InputMeans, PostTraining):
    """Post-training quantization that corrects biases."""
