"""Banner, Nahshan and Soudry, Post Training 4-bit Quantization of Convolutional Networks for Rapid
Deployment (ACIQ), NeurIPS 2019, section 3: the clip that is best for a Laplace distribution.
"""

import torch

import tersely
from tersely.contracts import ObservesRange

CLIPS = {2: 2.83, 3: 3.89, 4: 5.03, 5: 6.20, 6: 7.41, 7: 8.64, 8: 9.89}
"""Bits -> the best clip over the mean distance from the mean, as the paper prints."""


class Deviations:
    """Counts, sums, magnitudes around the first mean, and the range, of each block."""

    def observe(self, values, size):
        count = torch.full(tersely.count_blocks(size, values.shape), float(values.numel()))
        total = tersely.sum_blocks(values.double(), size)
        count = (count / count.numel()).double().to(total)
        mean = tersely.expand_blocks(total / count, size, values.shape)
        low, high = tersely.block_range(values, size)
        distance = tersely.sum_blocks((values.double() - mean).abs(), size)
        return {"count": count, "sum": total, "distance": distance, "low": low, "high": high}

    def merge(self, before, batch):
        return self.join([before, batch])

    def join(self, parts):
        found = {name: sum(part[name] for part in parts) for name in ("count", "sum", "distance")}
        found["low"] = torch.stack([part["low"] for part in parts]).amin(0)
        found["high"] = torch.stack([part["high"] for part in parts]).amax(0)
        return found

    def range(self, statistics, target):
        low, high = statistics["low"], statistics["high"]
        bits = (target.quant_max - target.quant_min + 1).bit_length() - 1
        bits = max(bits, 2) if target.quant_min == 0 else bits + 1
        mean = statistics["sum"] / statistics["count"]
        reach = CLIPS.get(bits, max(CLIPS.values())) * statistics["distance"] / statistics["count"]
        inside = (mean - reach).to(low), (mean + reach).to(low)
        return torch.maximum(low, inside[0]), torch.minimum(high, inside[1])


class AnalyticClipping(ObservesRange):
    """Clips where a Laplace distribution of the observed width loses least."""

    def observer(self, target: tersely.QuantizationTarget) -> Deviations:
        return Deviations()


@tersely.hookimpl
def tersely_quantizers():
    return [
        tersely.QuantizerInfo(
            name="analytic_clipping",
            implementation="analytic_clipping:AnalyticClipping",
            summary="The best clip for a Laplace distribution.",
            paper="Banner, Nahshan and Soudry, ACIQ, NeurIPS 2019",
            needs="activations",
        )
    ]
