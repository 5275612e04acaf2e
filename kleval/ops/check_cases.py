"""Test cases of each device kernel, with the answer in float64 by the plain forms; see `check`.

Every case yields (label, tolerance, (what the kernel gave, what it should be)). Tolerances are relative: bfloat16 rounds to 2^-9 and a
chunk's products are rounded between its stages, 2e-2; float32 kernels 1e-4. A miscompiled kernel is off by far more than either.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from kleval.ops.delta_rule import recurrent_delta_rule

TOLERANCES = {torch.bfloat16: 2e-2, torch.float32: 1e-4}
Pair = tuple[Tensor, Tensor]  # what the kernel gave, what it should be


@dataclass(frozen=True, slots=True)
class Sizes:
    """Shapes to check at, those of the published model unless given: kernels are compiled per shape.

    heads, dim: of KDA and GDN; tokens of the longest prompt; hidden, inner, experts, top_k: of a sparse MLP; depth: cached tokens,
    attention_heads, rank, rope: of MLA.
    """

    heads: int = 32
    dim: int = 128
    tokens: int = 4133
    hidden: int = 2304
    inner: int = 1024
    experts: int = 256
    top_k: int = 8
    depth: int = 5000
    attention_heads: int = 32
    rank: int = 512
    rope: int = 64


SMALL = Sizes(2, 16, 40, 48, 32, 12, 3, 300, 3, 32, 16)  # for the interpreter


Checks = Iterator[tuple[str, float, Pair]]


class _Draw:
    """Random tensors on the device, and NaN in memory that will be handed out."""

    def __init__(self, device: torch.device, generator: torch.Generator) -> None:
        self.device, self.generator = device, generator

    def normal(self, *shape: int, dtype: torch.dtype = torch.float32, scale: float = 1.0) -> Tensor:
        return (torch.randn(shape, generator=self.generator, device=self.device) * scale).to(dtype)

    def uniform(self, *shape: int) -> Tensor:
        return torch.rand(shape, generator=self.generator, device=self.device)

    def poison(self) -> None:
        if self.device.type == "cuda":
            torch.full((1 << 26,), torch.nan, device=self.device)
            for size in (1 << 12, 1 << 16, 1 << 20):
                [torch.full((size,), torch.nan, device=self.device) for _ in range(8)]


def _gates(draw: _Draw, shape: tuple[int, ...], kind: str) -> Tensor:
    """Log-decays: near no decay, as a model's, or with single steps that forget everything."""
    uniform = draw.uniform(*shape)
    if kind == "slow":
        return -1e-4 * uniform
    return -2.0 * uniform if kind == "usual" else torch.where(uniform < 0.05, -300.0, -0.05 * uniform)


def _chunk(per_channel: bool) -> Callable[[torch.device, Sizes, torch.Generator], Checks]:
    """fla's chunkwise kernels: prompt lengths around their chunk of 64, with a state and without, and carried between calls."""

    def checks(device: torch.device, sizes: Sizes, generator: torch.Generator) -> Checks:
        from kleval.ops import fla_kernels

        kernel = fla_kernels.chunk_kda if per_channel else fla_kernels.chunk_gdn
        draw, half = _Draw(device, generator), torch.bfloat16
        heads, dim = sizes.heads, sizes.dim
        for kind, batch, tokens, carried in (
            ("usual", 1, sizes.tokens, True),
            ("slow", 2, 64, False),
            ("cliffs", 1, 129, True),
            ("usual", 3, 2, True),
        ):
            q, k = (F.normalize(draw.normal(batch, tokens, heads, dim), dim=-1).to(half) for _ in range(2))
            v, beta = draw.normal(batch, tokens, heads, dim, dtype=half), draw.uniform(batch, tokens, heads)
            g = _gates(draw, (batch, tokens, heads, dim if per_channel else 1), kind)
            beta[:, -1:], g[:, -1:] = 0.0, 0.0  # padding: must neither decay nor write
            state = draw.normal(batch, heads, dim, dim) if carried else None
            wide_state = None if state is None else state.double()
            expected = recurrent_delta_rule(q.double(), k.double(), v.double(), g.double(), beta.double(), wide_state)
            gate = g if per_channel else g.squeeze(-1)
            draw.poison()
            label = f"{kind} gates, {batch} x {tokens} tokens"
            o, final = kernel(q, k, v, gate, beta, state)
            yield f"{label}, outputs", TOLERANCES[half], (o, expected[0])
            yield f"{label}, state", TOLERANCES[half], (final, expected[1])
            cut = tokens // 2
            if carried and cut:
                first, between = kernel(q[:, :cut], k[:, :cut], v[:, :cut], gate[:, :cut], beta[:, :cut], state)
                second, final = kernel(q[:, cut:], k[:, cut:], v[:, cut:], gate[:, cut:], beta[:, cut:], between)
                yield f"{label}, cut in two", TOLERANCES[half], (torch.cat([first, second], 1), expected[0])
                yield f"{label}, state of two", TOLERANCES[half], (final, expected[1])

    return checks


def _step(device: torch.device, sizes: Sizes, generator: torch.Generator) -> Checks:
    """The kernels of one decoded token of a linear layer, several tokens in a row so that what they write is read."""
    from kleval.ops import kda_triton, linear_triton
    from kleval.ops.norm import gated_rms_norm, l2_norm, rms_norm
    from kleval.ops.short_conv import short_conv

    draw, half, exact, rounded = (
        _Draw(device, generator),
        torch.bfloat16,
        TOLERANCES[torch.float32],
        TOLERANCES[torch.bfloat16],
    )
    batch, heads, dim = 3, sizes.heads, sizes.dim
    inner = heads * dim
    for per_channel in (True, False):
        name, gates = ("KDA", inner) if per_channel else ("GDN", heads)
        a_log, dt_bias = 2 * draw.uniform(heads), draw.normal(gates, scale=4.0)
        state = draw.normal(batch, heads, dim, dim)
        wide = state.double()
        for _ in range(3):
            qkv, f, b = (draw.normal(batch, n, dtype=half) for n in (3 * inner, gates, heads))
            q, k, v = (x.unflatten(-1, (1, heads, dim)).double() for x in qkv.chunk(3, -1))
            rate = F.softplus(f.double() + dt_bias.double()).unflatten(-1, (1, heads, -1))
            g = -a_log.double().exp().view(heads, 1) * rate
            beta = torch.sigmoid(b.double()).unsqueeze(1)
            expected, wide = recurrent_delta_rule(l2_norm(q), l2_norm(k), v, g, beta, wide)
            draw.poison()
            raw_q, raw_k, raw_v = qkv.chunk(3, -1)
            o = kda_triton.raw_step(raw_q, raw_k, raw_v, f, b, a_log, dt_bias, state, per_channel)
            yield f"{name} step, outputs", exact, (o.unsqueeze(1), expected)
            yield f"{name} step, state", exact, (state, wide)
            o = kda_triton.step(
                l2_norm(q).float(), l2_norm(k).float(), v.float(), g.float(), beta.float(), again := state.clone()
            )
            expected, last = recurrent_delta_rule(l2_norm(q), l2_norm(k), v, g, beta, wide)
            yield f"{name} step, ready operands", exact, (o, expected)
            yield f"{name} step, their state", exact, (again, last)
    taps, tail = draw.normal(3 * inner, 4, dtype=half), draw.normal(batch, 3 * inner, 3, dtype=half)
    for _ in range(3):
        x = draw.normal(batch, 3 * inner + 8, dtype=half)[:, : 3 * inner]
        expected, after = short_conv(x.double().unsqueeze(1), taps.double().unsqueeze(1), tail.double())
        draw.poison()
        y = linear_triton.conv_step(x, taps, tail)
        yield "convolution, outputs", rounded, (y, expected.squeeze(1))
        yield "convolution, tail", exact, (tail, after)
    for tokens in (1, 2, 70):
        x = draw.normal(batch, tokens, 3 * inner + 8, dtype=half)[..., : 3 * inner]
        expected, _ = short_conv(x.double(), taps.double().unsqueeze(1), tail.double())
        draw.poison()
        for name, y, right in zip(
            "qkv", linear_triton.prepare(x, taps, tail, heads), expected.chunk(3, -1), strict=True
        ):
            right = right.unflatten(-1, (heads, dim))
            yield f"prompt of {tokens}, {name}", rounded, (y, right if name == "v" else l2_norm(right))
    o, weight, gate = (
        draw.normal(batch, heads, dim),
        draw.normal(dim, dtype=half),
        draw.normal(batch, inner, dtype=half),
    )
    expected = gated_rms_norm(o.double(), weight.double(), gate.double().view(batch, heads, dim))
    draw.poison()
    yield "gated norm", rounded, (linear_triton.gated_norm_step(o, weight, gate).view(batch, heads, dim), expected)
    x, more, weight = (
        draw.normal(*shape, dtype=half) for shape in ((batch, sizes.hidden), (batch, sizes.hidden), (sizes.hidden,))
    )
    total = (x + more).double()
    y = linear_triton.add_norm(x, more, weight)
    yield "norm", rounded, (y, rms_norm(total, weight.double()))
    yield "residual sum", rounded, (x, total)


def _moe_operands(draw: _Draw, sizes: Sizes, tokens: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """x, weights, experts, gate_up, down in bfloat16, at a scale at which outputs are about 1."""
    half = torch.bfloat16
    x = draw.normal(tokens, sizes.hidden, dtype=half)
    weights = draw.uniform(tokens, sizes.top_k)
    experts = draw.uniform(tokens, sizes.experts).topk(sizes.top_k, -1).indices
    gate_up = draw.normal(sizes.experts, 2 * sizes.inner, sizes.hidden, dtype=half, scale=sizes.hidden**-0.5)
    down = draw.normal(sizes.experts, sizes.hidden, sizes.inner, dtype=half, scale=sizes.inner**-0.5)
    return x, weights, experts, gate_up, down


def _expected_experts(x: Tensor, weights: Tensor, experts: Tensor, gate_up: Tensor, down: Tensor) -> Tensor:
    """Pair by pair in float64."""
    out = torch.zeros_like(x, dtype=torch.float64)
    for expert in experts.unique().tolist():
        token, choice = (experts == expert).nonzero(as_tuple=True)
        gate, up = F.linear(x[token].double(), gate_up[expert].double()).chunk(2, -1)
        y = F.linear(F.silu(gate) * up, down[expert].double())
        out.index_add_(0, token, y * weights[token, choice].double().unsqueeze(-1))
    return out


def _experts(device: torch.device, sizes: Sizes, generator: torch.Generator) -> Checks:
    """Grouped products: more rows than a tile, and groups without a row."""
    from kleval.ops.grouped import sorted_experts

    draw = _Draw(device, generator)
    for tokens in (8 * sizes.experts, 5):
        operands = _moe_operands(draw, sizes, tokens)
        expected = _expected_experts(*operands)
        draw.poison()
        yield f"{tokens} tokens", TOLERANCES[torch.bfloat16], (sorted_experts(*operands), expected)
        yield f"{tokens} tokens, plain", TOLERANCES[torch.bfloat16], (sorted_experts(*operands, fused=False), expected)


def _experts_decode(device: torch.device, sizes: Sizes, generator: torch.Generator) -> Checks:
    """The chosen experts alone, and with a shared one."""
    from kleval.ops.moe_triton import decode_experts

    draw, half, tolerance = _Draw(device, generator), torch.bfloat16, TOLERANCES[torch.bfloat16]
    for tokens in (1, 5):
        x, weights, experts, gate_up, down = _moe_operands(draw, sizes, tokens)
        expected = _expected_experts(x, weights, experts, gate_up, down)
        draw.poison()
        yield f"{tokens} tokens", tolerance, (decode_experts(x, weights, experts, gate_up, down), expected)
        gate, up = (draw.normal(sizes.inner, sizes.hidden, dtype=half, scale=sizes.hidden**-0.5) for _ in range(2))
        shared_down = draw.normal(sizes.hidden, sizes.inner, dtype=half, scale=sizes.inner**-0.5)
        wide = x.double()
        expected += F.linear(F.silu(F.linear(wide, gate.double())) * F.linear(wide, up.double()), shared_down.double())
        y = decode_experts(x, weights, experts, gate_up, down, (gate, up, shared_down))
        yield f"{tokens} tokens and a shared expert", tolerance, (y, expected)


def _router(device: torch.device, sizes: Sizes, generator: torch.Generator) -> Checks:
    """Weights laid out over all experts, so that a wrong choice is a large error."""
    from kleval.ops.moe import route
    from kleval.ops.moe_triton import decode_route

    draw, half = _Draw(device, generator), torch.bfloat16
    x, gate = draw.normal(5, sizes.hidden, dtype=half), draw.normal(sizes.experts, sizes.hidden, dtype=half)
    gate = gate * sizes.hidden**-0.5
    bias = draw.normal(sizes.experts, scale=0.1)
    weights, experts = route(x.double(), gate.double(), bias.double(), sizes.top_k, 2.446)
    expected = torch.zeros(5, sizes.experts, dtype=torch.float64, device=device).scatter_(1, experts, weights)
    draw.poison()
    weights, experts = decode_route(x, gate, bias, sizes.top_k, 2.446)
    dense = torch.zeros(5, sizes.experts, device=device).scatter_(1, experts, weights)
    yield "weights over all experts", TOLERANCES[torch.float32], (dense, expected)


def _mla_decode(device: torch.device, sizes: Sizes, generator: torch.Generator) -> Checks:
    """Sequences of very different depth, their granules scattered; a row is appended and seen."""
    from kleval.ops import mla_triton

    draw, half, tolerance = _Draw(device, generator), torch.bfloat16, TOLERANCES[torch.bfloat16]
    size, width = mla_triton.GRANULE, sizes.rank + sizes.rope
    depths = (sizes.depth, 0, size - 1, sizes.depth // 3)
    batch, granules = len(depths), sizes.depth // size + 1
    pool = draw.normal(batch * granules, size, width, dtype=half)
    place = torch.randperm(batch * granules, generator=generator, device=device).view(batch, granules)
    table = place * (size * width * half.itemsize) + pool.data_ptr()
    lengths = torch.tensor(depths, dtype=torch.int64, device=device)
    q, new = draw.normal(batch, sizes.attention_heads, width, dtype=half), draw.normal(batch, width, dtype=half)
    mla_triton.append(new, table, lengths)
    rows = pool[place].flatten(1, 2)  # [B, granules * size, width]
    yield "appended row", tolerance, (rows[torch.arange(batch, device=device), lengths], new)
    hidden = torch.arange(rows.shape[1], device=device) > lengths[:, None]
    scale = (3 * sizes.rope) ** -0.5  # the published shape's 192
    scores = torch.einsum("bhd,bnd->bhn", q.double(), rows.double()) * scale
    weights = scores.masked_fill(hidden[:, None], -torch.inf).softmax(-1)
    expected = weights @ rows[..., : sizes.rank].double()
    draw.poison()
    out = mla_triton.decode(q, table, lengths, sizes.rank, scale, extra=1)
    for b, depth in enumerate(depths):
        yield f"depth {depth}", tolerance, (out[b], expected[b])


CHECKS: dict[str, Callable[[torch.device, Sizes, torch.Generator], Checks]] = {
    "kda": _chunk(per_channel=True),
    "gdn": _chunk(per_channel=False),
    "step": _step,
    "mla_decode": _mla_decode,
    "experts_decode": _experts_decode,
    "router": _router,
    "experts": _experts,
}
