"""Attention to one block of keys with its log-sum-exp, and the merging of blocks.

`attend(q, k, v, scale, causal)` is softmax(scale q k^T) v together with lse = log sum exp(scale q k^T), from which results over
disjoint blocks of keys are put together exactly (online softmax, arXiv 2205.14135 §3.1; `merge`). No library kernel is asked for a
lower-right causal mask: what lies before a chunk is attended in full, the chunk's own square causally.

Kernels: on a CPU torch's flash attention. On CUDA the first of cuDNN, flash and memory-efficient attention that runs these widths
and, on a small random case, agrees with `attend_plain`; the choice is made once per device, dtype and widths. Where none does, and
elsewhere, `attend_plain`; a kernel that refuses a call is passed over for that call. The CUDA kernels are called as `torch.ops.aten`
operators, because `scaled_dot_product_attention` does not return lse. They have not yet run on a GPU; their check is tested on CPU
kernels.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

Attend = Callable[[Tensor, Tensor, Tensor, float, bool], tuple[Tensor, Tensor]]


def attend(q: Tensor, k: Tensor, v: Tensor, scale: float, causal: bool = False) -> tuple[Tensor, Tensor]:
    """q [B, H, T, D], k [B, H, S, D], v [B, H, S, Dv] -> out [B, H, T, Dv] in q's dtype, lse [B, H, T] in float32 (float64).

    causal: T = S and token t sees keys 0 ... t. Without gradient.
    """
    if q.device.type == "cpu":
        return attend_cpu(q, k, v, scale, causal)
    if q.is_cuda:
        return _attend_cuda(q, k, v, scale, causal)
    return attend_plain(q, k, v, scale, causal)


def _attend_cuda(q: Tensor, k: Tensor, v: Tensor, scale: float, causal: bool) -> tuple[Tensor, Tensor]:
    device = torch.cuda.current_device() if q.device.index is None else q.device.index
    refused: tuple[Attend, ...] = ()
    while True:
        kernel = cuda_kernel(device, q.dtype, q.shape[-1], v.shape[-1], refused)
        try:
            return kernel(q, k, v, scale, causal)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError:  # what suits the widths may not suit these lengths
            if kernel is attend_plain:
                raise
            refused += (kernel,)


def attend_plain(q: Tensor, k: Tensor, v: Tensor, scale: float, causal: bool = False) -> tuple[Tensor, Tensor]:
    """By matrix products and a softmax: the reference, with [T, S] scores in memory."""
    wide = torch.promote_types(q.dtype, torch.float32)
    scores = (q @ k.transpose(-1, -2)).to(wide) * scale
    if causal:
        scores.masked_fill_(torch.ones(scores.shape[-2:], dtype=torch.bool, device=q.device).triu_(1), -math.inf)
    lse = scores.logsumexp(-1)
    return scores.sub_(lse.unsqueeze(-1)).exp_().to(v.dtype) @ v, lse


def attend_cpu(q: Tensor, k: Tensor, v: Tensor, scale: float, causal: bool = False) -> tuple[Tensor, Tensor]:
    """torch's flash attention, which wants equal widths: the narrower side is padded with zeros."""
    key_width, value_width = q.shape[-1], v.shape[-1]
    kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu.default
    if key_width == value_width:
        return kernel(q, k, v, 0.0, causal, scale=scale)
    q, k, v = (_padded(x, max(key_width, value_width)) for x in (q, k, v))
    out, lse = kernel(q, k, v, 0.0, causal, scale=scale)
    return out[..., :value_width], lse


def merge(out: Tensor, lse: Tensor, more: Tensor, more_lse: Tensor) -> None:
    """Add the result over further keys, in place: out [..., Dv], lse [...]; lse -inf is a result over no keys."""
    both = torch.logaddexp(lse, more_lse)
    out.mul_((lse - both).exp_().unsqueeze(-1)).addcmul_(more.to(out.dtype), (more_lse - both).exp_().unsqueeze(-1))
    lse.copy_(both)


@functools.cache
def cuda_kernel(
    device: int, dtype: torch.dtype, width: int, value_width: int, refused: tuple[Attend, ...] = ()
) -> Attend:
    """The kernel for these widths on that device: the first candidate, none of `refused`, that runs and agrees with
    `attend_plain`."""
    place = torch.device("cuda", device)
    candidates = (_cudnn, _flash, _efficient) if dtype in (torch.bfloat16, torch.float16) else (_efficient,)
    left = (c for c in candidates if c not in refused)
    return next((c for c in left if _agrees(c, place, dtype, width, value_width)), attend_plain)


def _agrees(candidate: Attend, device: torch.device, dtype: torch.dtype, width: int, value_width: int) -> bool:
    """On operands laid out in memory as `mla.expand` leaves them: heads inside tokens, values behind something else."""
    generator = torch.Generator(device).manual_seed(0)
    tolerance = {torch.bfloat16: 0.03, torch.float16: 0.01}.get(dtype, 1e-3)
    for tokens, keys, causal in ((96, 96, True), (72, 200, False)):
        shapes = ((2, tokens, 3, width), (2, 3, keys, width), (2, keys, 3, 2 * value_width))
        q, k, v = (torch.randn(s, device=device, dtype=torch.float32, generator=generator).to(dtype) for s in shapes)
        q, v = q.transpose(1, 2), v.transpose(1, 2)[..., value_width:]
        expected, expected_lse = attend_plain(q.float(), k.float(), v.float(), width**-0.5, causal)
        try:
            out, lse = candidate(q, k, v, width**-0.5, causal)
            if lse.shape != expected_lse.shape or out.shape != expected.shape:
                return False
            error = max(float((out.float() - expected).abs().max()), float((lse - expected_lse).abs().max()))
        except RuntimeError:  # also what a launch reports when its result is read
            return False
        if not error < tolerance:
            return False
    return True


def _cudnn(q: Tensor, k: Tensor, v: Tensor, scale: float, causal: bool) -> tuple[Tensor, Tensor]:
    """Takes values narrower than keys on Hopper."""
    kernel = torch.ops.aten._scaled_dot_product_cudnn_attention
    out, lse = kernel(q, k, v, None, True, 0.0, causal, False, scale=scale)[:2]
    return out, lse.reshape(q.shape[:3])


def _flash(q: Tensor, k: Tensor, v: Tensor, scale: float, causal: bool) -> tuple[Tensor, Tensor]:
    """Equal widths, in multiples of 8, up to 256."""
    width = -(-max(q.shape[-1], v.shape[-1]) // 8) * 8
    kernel = torch.ops.aten._scaled_dot_product_flash_attention
    padded = (_padded(x, width) for x in (q, k, v))
    out, lse = kernel(*padded, 0.0, causal, False, scale=scale)[:2]
    return out[..., : v.shape[-1]], lse[..., : q.shape[2]]


def _efficient(q: Tensor, k: Tensor, v: Tensor, scale: float, causal: bool) -> tuple[Tensor, Tensor]:
    kernel = torch.ops.aten._scaled_dot_product_efficient_attention
    out, lse = kernel(q, k, v, None, True, 0.0, causal, scale=scale)[:2]
    return out, lse[..., : q.shape[2]]


def _padded(x: Tensor, width: int) -> Tensor:
    return x if x.shape[-1] == width else F.pad(x, (0, width - x.shape[-1]))
