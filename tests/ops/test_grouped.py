"""Experts without a loop: the same sum in every form, the same bits every time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kleval.ops.grouped import grouped_experts, looped_experts, sorted_experts
from kleval.ops.moe import swiglu

SCRIPT = Path(__file__).with_name("interpreted_kernels.py")
TOLERANCES = {"float64": 1e-13, "float32": 1e-5, "bfloat16": 2e-2}


def operands(
    seed: int, tokens: int, experts: int, top_k: int, dtype: torch.dtype = torch.float32
) -> tuple[Tensor, ...]:
    """x, weights, chosen experts, gate_up, down, with hidden 16 and inner 8."""
    g = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g, dtype=torch.float64).to(dtype)

    chosen = torch.rand(tokens, experts, generator=g).topk(top_k, -1).indices
    return (
        normal(tokens, 16),
        normal(tokens, top_k).float(),
        chosen,
        normal(experts, 16, 16) / 4,
        normal(experts, 16, 8) / 3,
    )


def one_by_one(x: Tensor, weights: Tensor, experts: Tensor, gate_up: Tensor, down: Tensor) -> Tensor:
    """Token by token, choice by choice, in float64."""
    out = torch.zeros_like(x, dtype=torch.float64)
    for n in range(len(x)):
        for weight, expert in zip(weights[n].double(), experts[n].tolist(), strict=True):
            gate, up = gate_up[expert].double().chunk(2)
            out[n] += weight * swiglu(x[n].double(), gate, up, down[expert].double())
    return out


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 30), st.integers(1, 9), st.data())
def test_every_form_is_the_sum_over_the_choices(seed: int, tokens: int, experts: int, data: st.DataObject) -> None:
    arguments = operands(seed, tokens, experts, data.draw(st.integers(1, experts)))
    expected = one_by_one(*arguments)
    forms = [looped_experts, grouped_experts, *([sorted_experts] if tokens else [])]
    for form in forms:
        torch.testing.assert_close(form(*arguments).double(), expected, rtol=1e-4, atol=1e-5)


def test_bfloat16_is_close_and_stays_bfloat16() -> None:
    arguments = operands(1, 40, 6, 3, torch.bfloat16)
    expected = one_by_one(*arguments)
    for form in (looped_experts, sorted_experts):
        out = form(*arguments)
        assert out.dtype == torch.bfloat16
        assert float((out.double() - expected).norm() / expected.norm()) < 2e-2


def test_experts_that_nobody_chose_do_not_matter() -> None:
    x, weights, chosen, gate_up, down = operands(2, 12, 5, 2)
    chosen = torch.where(chosen == 3, 2, chosen)
    expected = sorted_experts(x, weights, chosen, gate_up, down)
    gate_up[3], down[3] = torch.nan, torch.nan
    assert torch.equal(sorted_experts(x, weights, chosen, gate_up, down), expected)
    assert torch.isfinite(looped_experts(x, weights, chosen, gate_up, down)).all()


def test_a_token_does_not_depend_on_its_neighbours() -> None:
    x, weights, chosen, gate_up, down = operands(3, 20, 4, 2)
    whole = sorted_experts(x, weights, chosen, gate_up, down)
    torch.testing.assert_close(sorted_experts(x[5:9], weights[5:9], chosen[5:9], gate_up, down), whole[5:9])


@pytest.fixture(scope="module")
def errors() -> dict[str, dict[str, float]]:
    """Of the Triton kernels, in a process of its own: triton reads TRITON_INTERPRET when it is imported."""
    pytest.importorskip("triton")
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(SCRIPT), "experts", "unusual"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(json.loads(done.stdout))


@pytest.mark.parametrize("case", [*(f"experts {dtype}" for dtype in TOLERANCES), "unusual scores float32"])
def test_the_kernels_equal_the_float64_form(errors: dict[str, dict[str, float]], case: str) -> None:
    tolerance = TOLERANCES[case.split()[-1]]
    assert {name: error for name, error in errors[case].items() if not error <= tolerance} == {}


def test_shapes_that_the_kernels_would_misread_are_refused() -> None:
    pytest.importorskip("triton")
    from kleval.ops.moe_triton import decode_experts, decode_route

    x, weights, chosen, gate_up, down = operands(4, 2, 4, 2)
    with pytest.raises(ValueError, match="contiguous"):
        decode_experts(x, weights, chosen, gate_up.transpose(1, 2), down)
    with pytest.raises(ValueError, match="shape"):
        decode_experts(x, weights, chosen, gate_up, down, (gate_up[0], gate_up[0], down[0]))
    with pytest.raises(ValueError, match="top_k"):
        decode_route(x, gate_up[0], torch.zeros(16), 17, 1.0)
