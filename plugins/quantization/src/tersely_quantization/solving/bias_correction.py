"""Bias correction: the mean error of rounding a weight, subtracted from the bias."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

import tersely
from tersely.contracts import CorrectsBias, ObservesInputs
from tersely_quantization.solving.weighed import AT_A_TIME, float_tensor, observed_by


class InputMeans(ObservesInputs, CorrectsBias):
    """Observes the mean of every input and corrects biases by it.

    Nagel et al., "Data-Free Quantization Through Weight Equalization and Bias Correction", ICCV
    2019, equation 17: rounding shifts outputs by (Q(W) - W) E[x]. Departs from the paper, which
    uses no data: E[x] is the mean of calibration.
    """

    def observe_input(
        self, inputs: Tensor, target: tersely.QuantizationTarget
    ) -> dict[str, Tensor]:
        """Return what one call of the module adds to the sums of its inputs.

        Args:
            inputs: the module's input.
            target: the weight that multiplies it.

        Returns:
            ``total``: shape (groups, columns), float, input units. ``count``: 0-dim, int64, the
            number of vectors. Empty when there are none, and for embeddings, which have no bias.

        Raises:
            ValueError: the target is not the weight of a linear layer or convolution.
        """
        if isinstance(target.module, nn.Embedding):
            return {}
        parts = list(tersely.input_rows(inputs, target, at_a_time=AT_A_TIME))
        if not parts:
            return {}
        total = torch.stack([part.sum(1) for part in parts]).sum(0)
        count = sum(part.shape[1] for part in parts)
        return {"total": total, "count": torch.tensor(count, device=total.device)}

    def bias_correction(self, target: tersely.QuantizationTarget, quantized: Tensor) -> Tensor:
        """Return the correction to add to the bias: (W - Q(W)) E[x].

        Args:
            target: the weight before quantization, with observations of its input.
            quantized: the quantized weight, the target's shape.

        Returns:
            Shape (outputs,), the tensor's dtype, output units.

        Raises:
            SessionError: there was no calibration.
            ValueError: the target is not the weight of a linear layer or convolution.
        """
        tensor = float_tensor(target)
        layout = tersely.matrix_layout(target)
        change = tersely.to_matrices(tensor - quantized.detach().to(tensor.dtype), layout)
        mean = observed_by(target, "total") / observed_by(target, "count").clamp_min(1)
        shift = (change @ mean.to(change.dtype)[..., None]).squeeze(-1)
        if isinstance(target.module, (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)):
            # The rows of a group are its outputs and the kernel's positions, each of which reaches
            # one output in ``stride``; what padding cuts off at the edges counts as if it did not.
            outputs = tensor.shape[1]
            shift = shift.reshape(layout.split[0], outputs, -1).sum(-1)
            shift = shift / math.prod(target.module.stride)
        return shift.flatten().to(quantized.dtype)
