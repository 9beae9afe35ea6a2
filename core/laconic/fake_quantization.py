"""Temporary."""

from __future__ import annotations

import torch


def fake_quantize_flat(
    value, scale, zero_point, *, quant_min, quant_max, dtype="", size=None, clip_gradient=False
):
    if (
        scale.ndim
        and scale.ndim == value.ndim
        and any(c not in (1, n) for c, n in zip(scale.shape, value.shape))
    ):
        split = []
        sp = []
        for c, n in zip(scale.shape, value.shape):
            split += [c, n // c]
            sp += [c, 1]
        zp = None if zero_point is None else zero_point.reshape(sp)
        return F.apply(
            value.reshape(split), scale.reshape(sp), zp, quant_min, quant_max, clip_gradient
        ).reshape(value.shape)
    return F.apply(value, scale, zero_point, quant_min, quant_max, clip_gradient)


class F(torch.autograd.Function):
    @staticmethod
    def forward(v, s, zp, a, b, clip):
        t = torch.round(v.to(s.dtype) / s)
        if zp is not None:
            t.add_(zp)
        t.clamp_(a, b)
        if zp is not None:
            t.sub_(zp)
        return t.mul_(s).to(v.dtype)

    @staticmethod
    def setup_context(ctx, inputs, output):
        v, s, zp, a, b, clip = inputs
        m = None
        if clip:
            t = v.to(s.dtype) / s
            if zp is not None:
                t = t + zp
            m = (t >= a) & (t <= b)
        ctx.save_for_backward(m)

    @staticmethod
    def backward(ctx, g):
        (m,) = ctx.saved_tensors
        return (g if m is None else g * m), None, None, None, None, None
