"""Attention of ``torch.nn`` whose heads do not fill its width, which torch itself refuses."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from tersely.planning.selecting.classes import ORIGINAL


class FewerHeads(nn.MultiheadAttention):
    """A shrunk `torch.nn.MultiheadAttention`, whose heads need not fill its width.

    It reads and returns ``embed_dim`` features and computes with ``num_heads`` heads of
    ``head_dim`` features in between. Parameters, arguments and results are those of
    `torch.nn.MultiheadAttention`, except that nested tensors are not accepted.
    """

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Attend, as `torch.nn.MultiheadAttention.forward` does."""
        is_batched = query.ndim == 3  # noqa: PLR2004  # batch, length, width
        is_self_attention = query is key and key is value
        moved = [self._batch_first(one, is_batched) for one in (query, key, value)]
        q, k, v = self._projected(moved, is_self_attention)
        k, v, extra = self._appended(k, v)
        hint = is_causal and key_padding_mask is None and not need_weights
        if is_causal and attn_mask is None:
            raise ValueError("is_causal says what attn_mask is; give attn_mask as well")
        mask = None if hint else self._mask(attn_mask, key_padding_mask, q, extra)
        dropped = self.dropout if self.training else 0.0
        weights = None
        if need_weights:
            scores = (q * self.head_dim**-0.5) @ k.transpose(-2, -1)
            weights = functional.softmax(scores if mask is None else scores + mask, dim=-1)
            weights = functional.dropout(weights, dropped) if dropped else weights
            heads = weights @ v
        else:
            heads = functional.scaled_dot_product_attention(
                q, k, v, mask, dropout_p=dropped, is_causal=hint
            )
        # The weight is read here, since reading applies its mask and scale.
        out = functional.linear(
            heads.transpose(1, 2).flatten(2), self.out_proj.weight, self.out_proj.bias
        )
        if weights is not None and average_attn_weights:
            weights = weights.mean(dim=1)
        if not is_batched:
            return out.squeeze(0), None if weights is None else weights.squeeze(0)
        return (out if self.batch_first else out.transpose(0, 1)), weights

    def _batch_first(self, x: Tensor, is_batched: bool) -> Tensor:
        if not is_batched:
            return x.unsqueeze(0)
        return x if self.batch_first else x.transpose(0, 1)

    def _projected(self, inputs: list[Tensor], is_self_attention: bool) -> list[Tensor]:
        """Return queries, keys and values, each of shape (batch, heads, length, head_dim)."""
        packed = cast("Tensor | None", self.in_proj_weight)
        bias = cast("Tensor | None", self.in_proj_bias)
        if packed is not None and is_self_attention:
            wide = functional.linear(inputs[0], packed, bias).chunk(3, dim=-1)
        else:
            weights = (
                (self.q_proj_weight, self.k_proj_weight, self.v_proj_weight)
                if packed is None
                else packed.chunk(3)
            )
            biases = (None, None, None) if bias is None else bias.chunk(3)
            wide = tuple(
                functional.linear(one, weight, its_bias)
                for one, weight, its_bias in zip(inputs, weights, biases, strict=True)
            )
        return [torch.unflatten(one, -1, (self.num_heads, -1)).transpose(1, 2) for one in wide]

    def _appended(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor, int]:
        """Return keys and values with those appended to every sequence, and the number of these."""
        parts: list[Tensor] = []
        for one, bias in ((k, self.bias_k), (v, self.bias_v)):
            last = one if bias is None else self._spread(bias, one)
            if self.add_zero_attn:
                last = functional.pad(last, (0, 0, 0, 1))
            parts.append(last if bias is None else torch.cat([one, last], dim=2))
        return parts[0], parts[1], parts[0].shape[2] - k.shape[2]

    def _spread(self, bias: Tensor, like: Tensor) -> Tensor:
        heads = torch.unflatten(bias, -1, (self.num_heads, -1)).transpose(1, 2)
        return heads.expand(like.shape[0], -1, -1, -1)

    def _mask(
        self, attn_mask: Tensor | None, key_padding_mask: Tensor | None, q: Tensor, extra: int
    ) -> Tensor | None:
        """Return the mask to add to scores; appended keys are always attended to."""
        found = None
        if attn_mask is not None:
            found = _additive(attn_mask, q)
            if found.ndim == 3:  # noqa: PLR2004  # one mask for each head of each sequence
                found = torch.unflatten(found, 0, (q.shape[0], self.num_heads))
        if key_padding_mask is not None:
            padding = _additive(key_padding_mask, q)
            padding = (padding if padding.ndim > 1 else padding[None])[:, None, None]
            found = padding if found is None else found + padding
        return found if found is None or not extra else functional.pad(found, (0, extra))


def _additive(mask: Tensor, like: Tensor) -> Tensor:
    if mask.dtype is not torch.bool:
        return mask
    zeros = torch.zeros(mask.shape, dtype=like.dtype, device=like.device)
    return zeros.masked_fill(mask, -torch.inf)


setattr(FewerHeads, ORIGINAL, nn.MultiheadAttention)
