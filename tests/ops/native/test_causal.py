"""Causal attention in C++ against the torch form in float64: values and gradients."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kleval.ops.mla_training import causal_attention
from kleval.ops.native.loading import native

pytestmark = pytest.mark.skipif(native() is None, reason="no C++ library here")


def case(tokens: int, width: int, value: int, size: float = 1.0, seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = [(2, 3, tokens, width), (2, 3, tokens, width), (2, 3, tokens, value), (2, 3, tokens, value)]
    return [size * torch.randn(shape, generator=generator) for shape in shapes]


def both(operands: list[torch.Tensor], dtype: torch.dtype) -> list[torch.Tensor]:
    q, k, v, d_out = (x.to(dtype).requires_grad_() for x in operands)
    out = causal_attention(q, k, v, 0.3)
    return [out.detach(), *torch.autograd.grad(out, (q, k, v), d_out)]


@given(st.integers(1, 200), st.integers(1, 40), st.integers(1, 70), st.integers(0, 9))
@settings(max_examples=40, deadline=None)
def test_any_shape_has_the_values_and_gradients_of_float64(tokens: int, width: int, value: int, seed: int) -> None:
    operands = case(tokens, width, value, seed=seed)
    for ours, right in zip(both(operands, torch.float32), both(operands, torch.float64), strict=True):
        torch.testing.assert_close(ours.double(), right, rtol=1e-4, atol=1e-5 * max(1.0, float(right.abs().max())))


@pytest.mark.parametrize("tokens", [512, 2048])
def test_long_sequences_and_large_scores(tokens: int) -> None:
    operands = case(tokens, 64, 32, 4.0)
    for ours, right in zip(both(operands, torch.float32), both(operands, torch.float64), strict=True):
        assert float((ours - right).abs().max()) <= 2e-4 * float(right.abs().max())


def test_threads_change_nothing() -> None:
    operands, before = case(300, 32, 16), torch.get_num_threads()
    try:
        found = []
        for threads in (1, 3):
            torch.set_num_threads(threads)
            found.append(both(operands, torch.float32))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_an_empty_batch_is_empty() -> None:
    q = torch.zeros(0, 2, 5, 4, requires_grad=True)
    out = causal_attention(q, q, q, 1.0)
    out.sum().backward()
    assert out.shape == (0, 2, 5, 4)
