"""The sparse mixture against a loop over tokens and experts, and what the router's parts do."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from kleval.ops.moe import route, sparse_experts

HIDDEN, INNER = 6, 4


@given(seed=st.integers(0, 10**6), n=st.integers(0, 9), experts=st.integers(2, 6), top_k=st.integers(1, 2))
@settings(max_examples=25, deadline=None)
def test_it_is_the_naive_loop(seed: int, n: int, experts: int, top_k: int) -> None:
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    x, gate, bias = normal(n, HIDDEN), normal(experts, HIDDEN), normal(experts)
    gate_up, down = normal(experts, 2 * INNER, HIDDEN), normal(experts, HIDDEN, INNER)
    weights, chosen = route(x, gate, bias, top_k, 2.446)
    ours = sparse_experts(x, weights, chosen, gate_up, down)
    with torch.no_grad():
        torch.testing.assert_close(sparse_experts(x, weights, chosen, gate_up, down), ours)
    expected = torch.zeros_like(x)
    for token in range(n):
        scores = [1 / (1 + torch.exp(-(gate[e] @ x[token]))) for e in range(experts)]
        best = sorted(range(experts), key=lambda e: -float(scores[e] + bias[e]))[:top_k]
        for e in best:
            inner = F.silu(gate_up[e, :INNER] @ x[token]) * (gate_up[e, INNER:] @ x[token])
            expected[token] += 2.446 * scores[e] / sum(scores[i] for i in best) * (down[e] @ inner)
    torch.testing.assert_close(ours, expected)


def test_the_bias_chooses_but_does_not_weigh() -> None:
    x, gate = torch.ones(1, 2), torch.tensor([[1.0, 1.0], [0.5, 0.5], [-1.0, -1.0]])
    bias = torch.tensor([0.0, 0.0, 100.0])
    weights, chosen = route(x, gate, bias, 2, 1.0)
    assert sorted(chosen[0].tolist()) == [0, 2]
    scores = torch.sigmoid(gate.sum(-1))
    expected = scores[chosen[0]] / (scores[0] + scores[2])
    torch.testing.assert_close(weights[0], expected)


def test_weights_are_normalised_then_scaled() -> None:
    weights, _ = route(torch.randn(5, 8), torch.randn(16, 8), torch.zeros(16), 4, 2.446)
    torch.testing.assert_close(weights.sum(-1), torch.full((5,), 2.446))


def test_gradients_reach_router_and_experts() -> None:
    x = torch.randn(6, HIDDEN, dtype=torch.float64, requires_grad=True)
    gate = torch.randn(4, HIDDEN, dtype=torch.float64, requires_grad=True)
    gate_up = torch.randn(4, 2 * INNER, HIDDEN, dtype=torch.float64, requires_grad=True)
    down = torch.randn(4, HIDDEN, INNER, dtype=torch.float64, requires_grad=True)

    def output(x: torch.Tensor, gate: torch.Tensor, gate_up: torch.Tensor, down: torch.Tensor) -> torch.Tensor:
        weights, chosen = route(x, gate, torch.zeros(4), 2, 1.0)
        return sparse_experts(x, weights, chosen, gate_up, down)

    assert torch.autograd.gradcheck(output, (x, gate, gate_up, down))
