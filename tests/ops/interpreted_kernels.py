"""Run with TRITON_INTERPRET=1 by `test_kda_triton.py` and others: prints, as one JSON object, the relative errors of our Triton
kernels against float64 references, per case; not a test module itself."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from kleval.ops import available, check, grouped, kda, kda_triton, linear_triton, moe_triton
from kleval.ops.delta_rule import recurrent_delta_rule
from kleval.ops.moe import route, swiglu
from kleval.ops.norm import gated_rms_norm, l2_norm, rms_norm
from kleval.ops.short_conv import short_conv

F64, F32, BF16 = torch.float64, torch.float32, torch.bfloat16
SHAPES = ((3, 2, 20, 37), (1, 1, 1, 1))


def error(out: Tensor, reference: Tensor) -> float:
    return float((out.double() - reference.double()).norm() / reference.double().norm().clamp_min(1e-300))


def steps(dtype: torch.dtype, per_channel: bool, rate: float) -> dict[str, float]:
    """Two tokens in a row, for every shape: ready operands and raw ones. Largest errors."""
    wide = F64 if dtype == F64 else F32
    worst: dict[str, float] = {}

    def note(name: str, out: Tensor, reference: Tensor) -> None:
        value = error(out, reference)
        worst[name] = max(worst.get(name, 0.0), value) if value == value else float("nan")

    for batch, heads, width, values in SHAPES:
        gates = heads * width if per_channel else heads
        state = torch.randn(batch, heads, width, values, dtype=wide)
        ready_state, exact = state.clone(), state.double()
        a_log, dt_bias = torch.rand(heads).mul(2).to(wide), torch.randn(gates).mul(rate).to(wide)
        for _ in range(2):
            sizes = (heads * width, heads * width, heads * values, gates, heads, 5)
            packed = torch.randn(batch, sum(sizes)).to(dtype)
            q, k, v, f, b, _rest = packed.split(sizes, -1)
            q1, k1, v1 = (x.double().unflatten(-1, (1, heads, -1)) for x in (q, k, v))
            softplus = F.softplus(f.double() + dt_bias.double()).unflatten(-1, (1, heads, -1))
            g = -a_log.double().exp().view(heads, 1) * softplus
            beta = torch.sigmoid(b.double()).unsqueeze(1)
            expected, exact = recurrent_delta_rule(l2_norm(q1), l2_norm(k1), v1, g, beta, exact)
            o = kda_triton.raw_step(q, k, v, f, b, a_log, dt_bias, state, per_channel)
            note("raw outputs", o.unsqueeze(1), expected)
            note("raw state", state, exact)
            ready = (l2_norm(q1).to(wide), l2_norm(k1).to(wide), v1.to(dtype), g.to(wide), beta.to(wide))
            o, same = kda.step_kda(*ready, ready_state)
            assert same is ready_state
            assert o.dtype == dtype
            note("ready outputs", o, expected)
            note("ready state", ready_state, exact)
    return worst


def convolution(dtype: torch.dtype) -> dict[str, float]:
    worst: dict[str, float] = {"outputs": 0.0, "tail": 0.0}
    for width, channels in ((4, 517), (2, 3), (1, 8)):
        taps, tail = torch.randn(channels, width).to(dtype), torch.randn(3, channels, width - 1).to(dtype)
        if width == 4:  # memory with time outside, as layers keep it
            taps, tail = taps.t().contiguous().t(), tail.transpose(1, 2).contiguous().transpose(1, 2)
        for _ in range(3):
            x = torch.randn(3, channels + 7).to(dtype)[:, :channels]
            y, after = short_conv(x.double().unsqueeze(1), taps.double().unsqueeze(1), tail.double())
            out = linear_triton.conv_step(x, taps, tail)
            worst["outputs"] = max(worst["outputs"], error(out, y.squeeze(1)))
            worst["tail"] = max(worst["tail"], error(tail, after))
    return worst


def norms(dtype: torch.dtype) -> dict[str, float]:
    batch, heads, values = 3, 5, 37
    o = torch.randn(batch, heads, values).to(F64 if dtype == F64 else F32)
    weight, gate = torch.randn(values).to(dtype), torch.randn(batch, heads * values + 3).to(dtype)[:, : heads * values]
    y = linear_triton.gated_norm_step(o, weight, gate)
    expected = gated_rms_norm(o.double(), weight.double(), gate.double().unflatten(-1, (heads, values)))
    errors = {"gated": error(y.view(batch, heads, values), expected)}
    x, more = (torch.randn(batch, values).to(dtype) for _ in range(2))
    total = (x + more).double()
    y = linear_triton.add_norm(x, more, weight)
    errors |= {"sum": error(x, total), "norm of sum": error(y, rms_norm(total, weight.double()))}
    errors["norm"] = error(linear_triton.add_norm(x, None, weight), rms_norm(total, weight.double()))
    errors["untouched"] = error(x, total)
    return errors


def experts(dtype: torch.dtype) -> dict[str, float]:
    worst: dict[str, float] = {}
    shapes = ((2, 264, 16, 3, 2), (1, 8, 8, 4, 1)) if dtype == F32 else ((2, 24, 16, 11, 3),)
    for tokens, hidden, inner, count, top_k in shapes:
        x = torch.randn(tokens, hidden).to(dtype)
        gate, bias = (torch.randn(count, hidden) * hidden**-0.5).to(dtype), torch.randn(count) * 0.3
        gate_up = (torch.randn(count, 2 * inner, hidden) * hidden**-0.5).to(dtype)
        down = (torch.randn(count, hidden, inner) * inner**-0.5).to(dtype)
        shared = (gate_up[0, :inner].clone(), gate_up[1, :inner].clone(), down[2].clone())
        right = route(*(t.double() for t in (x, gate, bias)), top_k, 2.446)
        got = moe_triton.decode_route(x, gate, bias, top_k, 2.446)
        assert torch.equal(right[1], got[1]), (right, got)
        expected = grouped.looped_experts(x.double(), *right, gate_up.double(), down.double())
        found = {
            "weights": error(got[0], right[0]),
            "routed": error(moe_triton.decode_experts(x, *got, gate_up, down), expected),
        }
        if dtype != F64:  # torch's grouped product knows no float64
            found["sorted"] = error(grouped.sorted_experts(x, *got, gate_up, down, fused=True), expected)
        if dtype == F32:
            found["dispatched"] = error(grouped.grouped_experts(x, *got, gate_up, down), expected)
        expected = expected + swiglu(x.double(), *(t.double() for t in shared))
        found["with shared"] = error(moe_triton.decode_experts(x, *got, gate_up, down, shared), expected)
        worst = {name: max(value, worst.get(name, 0.0)) for name, value in found.items()}
    return worst


def unusual_scores() -> dict[str, float]:
    """Equal scores: the lower index first. NaN: experts in range."""
    x, gate, bias = torch.zeros(2, 8), torch.ones(6, 8), torch.zeros(6)
    weights, chosen = moe_triton.decode_route(x, gate, bias, 3, 1.0)
    _, broken = moe_triton.decode_route(x * torch.nan, gate, bias, 3, 1.0)
    in_range = bool(((broken >= 0) & (broken < 6)).all())
    return {
        "order": error(chosen, torch.tensor([[0, 1, 2], [0, 1, 2]])),
        "equal weights": error(weights, torch.full((2, 3), 1 / 3)),
        "out of range": 0.0 if in_range else 1.0,
    }


def checked() -> dict[str, float]:
    """`check_kernels` itself, of everything that the interpreter can run."""
    return {c.name: c.error if c.passed else float("nan") for c in check.check_kernels("cpu", 3) if c.available}


def main() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    assert available.usable("step", "cpu")
    cases: dict[str, Callable[[], dict[str, float]]] = {
        "unusual scores float32": unusual_scores,
        "check bfloat16": checked,
    }
    for dtype in (F64, F32, BF16):
        name = str(dtype).removeprefix("torch.")
        for per_channel in (True, False):
            for rate in (4.0, 60.0) if dtype == F32 else (4.0,):  # the larger: gates between none and a reset
                label = f"{'kda' if per_channel else 'gdn'} rate {rate:g} {name}"
                cases[label] = lambda d=dtype, p=per_channel, r=rate: steps(d, p, r)
        cases[f"convolution {name}"] = lambda d=dtype: convolution(d)
        cases[f"norms {name}"] = lambda d=dtype: norms(d)
        cases[f"experts {name}"] = lambda d=dtype: experts(d)
    wanted = sys.argv[1:]
    json.dump({label: case() for label, case in cases.items() if not wanted or label.split()[0] in wanted}, sys.stdout)


if __name__ == "__main__":
    main()
