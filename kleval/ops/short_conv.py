"""Causal depthwise convolution over time, followed by SiLU, with the last width - 1 inputs as its state.

The same function as `causal_conv1d(..., activation="silu")`; the last tap meets the current token. Channels stay innermost and a tap
is one multiply-add over the whole sequence: faster on a CPU than torch's grouped conv1d, which wants time innermost.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable


def short_conv(
    x: Tensor, weight: Tensor, tail: Tensor | None = None, lengths: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """x [B, T, D], weight [D, 1, W], tail [B, D, W - 1] the inputs before x (zeros if None).

    lengths [B]: real tokens per row, the rest is padding on the right that must not enter the tail.
    Returns SiLU(conv(x)) [B, T, D] and the new tail [B, D, W - 1], both in x's dtype; the tail's memory has time outside.
    """
    batch, tokens, channels = x.shape
    width = weight.shape[-1]
    before = x.new_zeros(batch, width - 1, channels) if tail is None else tail.transpose(1, 2).to(x.dtype)
    padded = torch.cat([before, x], 1)  # [B, W - 1 + T, D]
    taps = weight.squeeze(1).t().to(x.dtype)
    if tokens == 1 and not torch.is_grad_enabled():
        y = F.silu((padded * taps).sum(1, keepdim=True), inplace=True)
    else:
        y = _Taps.apply(padded, taps.contiguous())
    if lengths is None:
        new_tail = padded[:, tokens:]
    else:
        index = lengths[:, None] + torch.arange(width - 1, device=x.device)
        new_tail = padded.gather(1, index[..., None].expand(-1, -1, channels))
    return y, new_tail.clone(memory_format=torch.contiguous_format).transpose(1, 2)


class _Taps(torch.autograd.Function):
    """padded [B, W - 1 + T, D], taps [W, D] -> SiLU of their correlation, [B, T, D]."""

    @staticmethod
    def forward(ctx: Any, padded: Tensor, taps: Tensor) -> Tensor:
        width = len(taps)
        tokens = padded.shape[1] - width + 1
        y = padded[:, :tokens] * taps[0]
        for i in range(1, width):
            y.addcmul_(padded[:, i : i + tokens], taps[i])
        if any(ctx.needs_input_grad):
            ctx.save_for_backward(padded, taps, y)
            return F.silu(y)
        return F.silu(y, inplace=True)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_out: Tensor) -> tuple[Tensor, Tensor]:
        padded, taps, y = ctx.saved_tensors
        tokens = y.shape[1]
        d_y = torch.ops.aten.silu_backward(d_out, y)
        d_padded, d_taps, product = torch.zeros_like(padded), torch.empty_like(taps), torch.empty_like(y)
        for i, tap in enumerate(taps):
            d_padded[:, i : i + tokens].addcmul_(d_y, tap)
            torch.mul(d_y, padded[:, i : i + tokens], out=product)
            torch.sum(product, (0, 1), out=d_taps[i])
        return d_padded, d_taps
