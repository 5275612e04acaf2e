"""Norms against their formulas, and their hand-written gradients."""

from __future__ import annotations

import torch

from kleval.ops.norm import gated_rms_norm, l2_norm, rms_norm


def test_rms_norm_is_its_formula() -> None:
    x, weight = torch.randn(3, 5, 8, dtype=torch.float64), torch.randn(8, dtype=torch.float64)
    expected = x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt() * weight
    torch.testing.assert_close(rms_norm(x, weight), expected)


def test_gated_norm_gates_after_normalising() -> None:
    x, gate = (torch.randn(2, 3, 4, 8, dtype=torch.float64) for _ in range(2))
    weight = torch.randn(8, dtype=torch.float64)
    torch.testing.assert_close(gated_rms_norm(x, weight, gate), rms_norm(x, weight) * torch.sigmoid(gate))


def test_l2_norm_adds_its_epsilon_to_the_sum_of_squares() -> None:
    x = torch.full((1, 4), 1e-3, dtype=torch.float64)
    torch.testing.assert_close(l2_norm(x), x / (4e-6 + 1e-6) ** 0.5)


def test_without_gradients_it_is_the_same() -> None:
    x, gate = (torch.randn(2, 3, 4, 8, dtype=torch.float64, requires_grad=True) for _ in range(2))
    weight = torch.randn(8, dtype=torch.float64, requires_grad=True)
    for function in (lambda: gated_rms_norm(x, weight, gate), lambda: rms_norm(x, weight), lambda: l2_norm(x)):
        with torch.no_grad():
            plain = function()
        torch.testing.assert_close(plain, function().detach())


def test_zero_stays_zero() -> None:
    zero = torch.zeros(2, 8, requires_grad=True)
    y = l2_norm(zero) + rms_norm(zero, torch.ones(8))
    y.sum().backward()
    assert bool((y == 0).all())
    assert zero.grad is not None
    assert bool(zero.grad.isfinite().all())


def test_gradients_are_right() -> None:
    x = torch.randn(2, 3, 5, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(5, dtype=torch.float64, requires_grad=True)
    gate = torch.randn(2, 3, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(gated_rms_norm, (x, weight, gate))
    assert torch.autograd.gradcheck(l2_norm, (x,))


def test_low_precision_is_computed_in_float32() -> None:
    x = torch.randn(4, 64).bfloat16()
    torch.testing.assert_close(rms_norm(x, torch.ones(64)), rms_norm(x.float(), torch.ones(64)).bfloat16())
