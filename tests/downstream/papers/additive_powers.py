"""Li, Dong and Wang, Additive Powers-of-Two Quantization (APoT), ICLR 2020, equation 5: levels that
are sums of powers of two, so that a product needs shifts and additions alone.

Departs from the paper in that the clip is the largest magnitude of a block and not learned, and
that weights are not normalized.
"""

import itertools

import torch

import tersely
from tersely.contracts import UsesLevels


def levels(bits: int) -> tuple[float, ...]:
    """Return the levels for 2k + 1 bits, one of which is the sign: k sums of four values each."""
    terms = (bits - 1) // 2
    sets = [[0.0, *(2.0 ** -(term + shift * terms) for shift in range(3))] for term in range(terms)]
    sums = sorted({sum(choice) for choice in itertools.product(*sets)})
    positive = [one / sums[-1] for one in sums]
    return (*(-one for one in reversed(positive[1:])), *positive)


class AdditivePowers(UsesLevels):
    """The largest magnitude of a block is its largest level."""

    def choose(
        self, low: torch.Tensor, high: torch.Tensor, target: tersely.QuantizationTarget
    ) -> tersely.QParams:
        chosen = tersely.choose_qparams(low, high, target)
        if not target.has_levels:
            return chosen
        bits = (target.quant_max + 1).bit_length() - 1
        scale = torch.maximum(-low, high).clamp_min(1e-12).reshape(chosen.scale.shape)
        return chosen.evolve(scale=scale, levels=torch.tensor(levels(bits)))


@tersely.hookimpl
def tersely_quantizers():
    return [
        tersely.QuantizerInfo(
            name="additive_powers",
            implementation="additive_powers:AdditivePowers",
            summary="Levels that are sums of powers of two.",
            paper="Li, Dong and Wang, APoT, ICLR 2020",
            target_kinds=("parameter",),
        )
    ]
