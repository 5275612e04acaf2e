"""KDA and GDN: the chunkwise form is the recurrence, at any gate, any length and any chunk."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kleval.ops.gdn import chunk_gdn, recurrent_gdn
from kleval.ops.kda import chunk_kda, recurrent_kda

RULES: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "kda": (chunk_kda, recurrent_kda),
    "gdn": (chunk_gdn, recurrent_gdn),
}
GATES = ("none", "slow", "usual", "fast", "cliffs")
laws = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def close(a: torch.Tensor, b: torch.Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("rule", RULES)
@given(
    seed=st.integers(0, 10**6),
    batch=st.integers(1, 3),
    tokens=st.sampled_from([0, 1, 2, 3, 16, 17, 31, 64, 75]),
    heads=st.integers(1, 2),
    key=st.integers(1, 6),
    value=st.integers(1, 6),
    gates=st.sampled_from(GATES),
    chunk=st.sampled_from([1, 2, 8, 16, 32, 64]),
    with_state=st.booleans(),
)
@laws
def test_chunkwise_is_recurrent(
    operands: Callable[..., Any],
    rule: str,
    seed: int,
    batch: int,
    tokens: int,
    heads: int,
    key: int,
    value: int,
    gates: str,
    chunk: int,
    with_state: bool,
) -> None:
    chunkwise, recurrent = RULES[rule]
    *inputs, state = operands(seed, batch, tokens, heads, key, value, rule == "kda", gates)
    initial = state if with_state else None
    o, final = chunkwise(*inputs, initial, chunk_size=chunk)
    expected, expected_final = recurrent(*inputs, initial)
    assert o.shape == (batch, tokens, heads, value)
    close(o, expected)
    close(final, expected_final)


@pytest.mark.parametrize("rule", RULES)
@given(
    seed=st.integers(0, 10**6),
    tokens=st.sampled_from([1, 5, 16, 33]),
    gates=st.sampled_from(GATES),
    chunk=st.sampled_from([1, 16, 32]),
)
@laws
def test_gradients_are_those_of_the_recurrence(
    operands: Callable[..., Any], rule: str, seed: int, tokens: int, gates: str, chunk: int
) -> None:
    chunkwise, recurrent = RULES[rule]
    inputs = [x.requires_grad_() for x in operands(seed, 2, tokens, 2, 4, 3, rule == "kda", gates)]
    generator = torch.Generator().manual_seed(seed)
    gradients = []
    for form in (lambda: chunkwise(*inputs, chunk_size=chunk), lambda: recurrent(*inputs)):
        o, final = form()
        generator.manual_seed(seed)
        of_o = torch.randn(o.shape, generator=generator, dtype=o.dtype)
        of_final = torch.randn(final.shape, generator=generator, dtype=o.dtype)
        gradients.append(torch.autograd.grad([o, final], inputs, [of_o, of_final]))
    for ours, expected in zip(*gradients, strict=True):
        close(ours, expected)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("gates", GATES)
def test_float32_is_finite_forward_and_backward_at_any_gate(
    operands: Callable[..., Any], rule: str, gates: str
) -> None:
    chunkwise, _ = RULES[rule]
    inputs = [x.requires_grad_() for x in operands(3, 2, 200, 2, 16, 16, rule == "kda", gates, torch.float32)]
    o, final = chunkwise(*inputs)
    gradients = torch.autograd.grad(o.square().sum() + final.square().sum(), inputs)
    assert all(x.isfinite().all() for x in (o, final, *gradients))


def test_float32_keeps_its_precision_after_a_cliff(operands: Callable[..., Any]) -> None:
    """Decays after a gate of -1000 are small numbers; as differences of running sums they would lose four digits."""
    inputs = operands(5, 1, 256, 1, 16, 16, True, "cliffs")
    o, _ = chunk_kda(*(x.float() for x in inputs))
    expected, _ = recurrent_kda(*inputs)
    torch.testing.assert_close(o.double(), expected, rtol=1e-4, atol=2e-6)


def test_kda_with_equal_decays_is_gdn(operands: Callable[..., Any]) -> None:
    q, k, v, g, beta, state = operands(7, 2, 50, 2, 8, 8, False, "usual")
    o, final = chunk_gdn(q, k, v, g, beta, state)
    expected, expected_final = chunk_kda(q, k, v, g.unsqueeze(-1).expand_as(k), beta, state)
    close(o, expected)
    close(final, expected_final)


def test_two_halves_with_the_state_carried_are_the_whole(operands: Callable[..., Any]) -> None:
    *inputs, state = operands(8, 2, 90, 2, 8, 8, True, "usual")
    whole, final = chunk_kda(*inputs, state)
    first, middle = chunk_kda(*(x[:, :37] for x in inputs), state)
    second, end = chunk_kda(*(x[:, 37:] for x in inputs), middle)
    close(torch.cat([first, second], 1), whole)
    close(end, final)


def test_tokens_without_gate_and_beta_change_no_state(operands: Callable[..., Any]) -> None:
    q, k, v, g, beta, state = operands(9, 1, 40, 2, 8, 8, True, "usual")
    g[:, 30:], beta[:, 30:] = 0, 0
    _, final = chunk_kda(q, k, v, g, beta, state)
    _, expected = chunk_kda(*(x[:, :30] for x in (q, k, v, g, beta)), state)
    close(final, expected)


def test_low_precision_inputs_keep_a_float32_state(operands: Callable[..., Any]) -> None:
    *inputs, _ = operands(10, 1, 20, 1, 8, 8, True, "usual")
    o, final = chunk_kda(*(x.bfloat16() for x in inputs))
    assert (o.dtype, final.dtype) == (torch.bfloat16, torch.float32)


def test_a_chunk_size_that_is_no_power_of_two_is_refused(operands: Callable[..., Any]) -> None:
    *inputs, _ = operands(11, 1, 20, 1, 8, 8, True, "usual")
    with pytest.raises(ValueError, match="power of two"):
        chunk_kda(*inputs, chunk_size=24)


def test_delta_rule_overwrites_what_a_key_held() -> None:
    """With beta 1 and no decay the last value written under a key is what the key recalls."""
    key = torch.eye(4, dtype=torch.float64)[[0, 1, 0]].view(1, 3, 1, 4)
    value = torch.tensor([[1.0, 0], [0, 1], [5, 5]], dtype=torch.float64).view(1, 3, 1, 2)
    zero, one = torch.zeros(1, 3, 1, 4, dtype=torch.float64), torch.ones(1, 3, 1, dtype=torch.float64)
    o, state = chunk_kda(key, key, value, zero, one)
    close(o.flatten(0, 2) * 2, value.flatten(0, 2))
    close(state[0, 0, 0], value[0, 2, 0])
