"""Chunkwise KDA and GDN by fla-core's Triton kernels (>= 0.6.0), imported at the first call.

Sources: fla-core 0.6.0 `fla/ops/kda/chunk.py: chunk_kda`, `fla/ops/gated_delta_rule/chunk.py: chunk_gated_delta_rule`. What matters in
how they are called: the log-decays are passed ready-made (`use_gate_in_kernel` False); `safe_gate` is for gates of at least -5, which
Kimi Linear's softplus gate is not and Kimi K3's is; queries and keys come normalised; the state is [B, H, K, V] float32
(`state_v_first` False); the scale K^-0.5 is applied inside.

Memory: one call keeps about 32 values of K per token and head besides its inputs (130 KiB per token at 32 heads of 128), so a
long call is cut into pieces of at most CALL_TOKENS tokens, the state carried from one to the next. fla tunes its kernels at the
first call of a process, whatever its length; `check.check_kernels` makes that a call of a few thousand tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

CALL_TOKENS = 65536  # tokens of all rows of one kernel call: at most 8.1 GiB of working memory at 32 heads of 128
SAFE_BOUND = -5.0  # from which on the kernels take `safe_gate`
_CHUNK = 64  # fla's own chunk: pieces are multiples of it, so that cutting does not move chunk boundaries


def chunk_kda(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    g: Tensor,
    beta: Tensor,
    initial_state: Tensor | None = None,
    lower_bound: float | None = None,
) -> tuple[Tensor, Tensor]:
    """As `kda.recurrent_kda`, for CUDA tensors in bfloat16 or float16 and T >= 1; no gradient. lower_bound: as `kda.chunk_kda`."""
    from fla.ops.kda import chunk_kda as kernel

    safe = lower_bound is not None and lower_bound >= SAFE_BOUND
    return _in_pieces(partial(kernel, safe_gate=True) if safe else kernel, q, k, v, g, beta, initial_state)


def chunk_gdn(
    q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, initial_state: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """As `gdn.recurrent_gdn`, for CUDA tensors in bfloat16 or float16 and T >= 1; no gradient."""
    from fla.ops.gated_delta_rule import chunk_gated_delta_rule as kernel

    return _in_pieces(kernel, q, k, v, g, beta, initial_state)


def fits(q: Tensor, v: Tensor) -> bool:
    """Whether these shapes and dtypes are ones the kernels take: K <= 256, half precision, at least two tokens.

    float32 stays with torch: the kernels would round its products to tf32.
    """
    return q.shape[1] > 1 and q.shape[-1] <= 256 and v.dtype in (torch.bfloat16, torch.float16)


def _in_pieces(
    kernel: Callable[..., Any], q: Tensor, k: Tensor, v: Tensor, g: Tensor, beta: Tensor, state: Tensor | None
) -> tuple[Tensor, Tensor]:
    q, k = q.to(v.dtype), k.to(v.dtype)
    g, beta = g.float(), beta.float()
    batch, tokens, heads, values = v.shape
    if state is None:
        state = q.new_zeros(batch, heads, q.shape[-1], values, dtype=torch.float32)
    else:
        state = state.float().contiguous()
    groups = list(_row_groups(batch))
    if len(groups) == 1 and batch * tokens <= CALL_TOKENS:
        o, final = kernel(q, k, v, g, beta, initial_state=state, output_final_state=True)
        return o, final
    o, final = torch.empty_like(v, memory_format=torch.contiguous_format), torch.empty_like(state)
    for rows in groups:
        piece = max(_CHUNK, CALL_TOKENS // (rows.stop - rows.start) // _CHUNK * _CHUNK)
        carried = state[rows]
        for begin in range(0, tokens, piece):
            at = (rows, slice(begin, begin + piece))
            o[at], carried = kernel(
                q[at], k[at], v[at], g[at], beta[at], initial_state=carried, output_final_state=True
            )
        final[rows] = carried
    return o, final


def _row_groups(batch: int) -> Iterator[slice]:
    """A batch in powers of two: fla compiles and tunes one of its kernels (`chunk_local_cumsum`) for every batch size it meets."""
    begin = 0
    while begin < batch:
        size = 1 << ((batch - begin).bit_length() - 1)
        yield slice(begin, begin + size)
        begin += size
