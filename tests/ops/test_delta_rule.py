"""KDA and GDN: the chunkwise form is the recurrence, at any gate, any length and any chunk."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kleval.ops import delta_rule_inference
from kleval.ops.delta_rule_inference import lower_inverse
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
    """In the form for inference and, where a gradient is wanted, the one for training."""
    chunkwise, recurrent = RULES[rule]
    *inputs, state = operands(seed, batch, tokens, heads, key, value, rule == "kda", gates)
    initial = state if with_state else None
    expected, expected_final = recurrent(*inputs, initial)
    for training in (False, True):
        o, final = chunkwise(*(x.requires_grad_(training) for x in inputs), initial, chunk_size=chunk)
        assert o.shape == (batch, tokens, heads, value)
        close(o, expected)
        close(final, expected_final)


@pytest.mark.parametrize("rule", RULES)
@given(
    seed=st.integers(0, 10**6),
    tokens=st.integers(100, 400),
    decay=st.sampled_from([1e-9, 1e-3, 0.5, 4.9, 5.1, 80.0]),
    chunk=st.sampled_from([16, 32, 64, 128, 256]),
    spread=st.sampled_from([0.0, 1.0, 4.0]),
)
@laws
def test_decays_near_0_and_near_1_over_long_chunks(
    operands: Callable[..., Any], rule: str, seed: int, tokens: int, decay: float, chunk: int, spread: float
) -> None:
    """Log-decays about -decay, some channels e^spread times faster than others: on both sides of where the forms change."""
    chunkwise, recurrent = RULES[rule]
    q, k, v, g, beta, state = operands(seed, 1, tokens, 2, 8, 8, rule == "kda", "none")
    generator = torch.Generator().manual_seed(seed)
    rates = torch.randn(g.shape[-1], generator=generator, dtype=g.dtype) * spread
    g = -decay * (1 + 0.1 * torch.rand(g.shape, generator=generator, dtype=g.dtype)) * rates.exp()
    o, final = chunkwise(q, k, v, g, beta, state, chunk_size=chunk)
    expected, expected_final = recurrent(q, k, v, g, beta, state)
    close(o, expected)
    close(final, expected_final)


@pytest.mark.parametrize("rule", RULES)
def test_a_cliff_in_one_chunk_leaves_the_others_alone(operands: Callable[..., Any], rule: str) -> None:
    chunkwise, recurrent = RULES[rule]
    q, k, v, g, beta, state = operands(13, 2, 128, 2, 8, 8, rule == "kda", "slow")
    g[0, 40:43] = -1e3
    o, final = chunkwise(q, k, v, g, beta, state)
    expected, expected_final = recurrent(q, k, v, g, beta, state)
    close(o, expected)
    close(final, expected_final)


@pytest.mark.parametrize("rule", RULES)
def test_pieces_of_a_long_sequence_are_the_whole(
    operands: Callable[..., Any], rule: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    chunkwise, _ = RULES[rule]
    inputs = operands(14, 2, 200, 2, 8, 8, rule == "kda", "usual")
    o, final = chunkwise(*inputs)
    monkeypatch.setattr(delta_rule_inference, "_PIECE_VALUES", 64 * 2 * 2 * 8)
    again, end = chunkwise(*inputs)
    close(again, o)
    close(end, final)


@pytest.mark.parametrize("limit", [0, 1 << 30])
def test_both_loops_over_chunks_are_the_recurrence(
    operands: Callable[..., Any], limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delta_rule_inference, "_LOOP_VALUES", limit)
    inputs = operands(15, 2, 130, 2, 8, 6, True, "usual")
    o, final = chunk_kda(*inputs)
    expected, expected_final = recurrent_kda(*inputs)
    close(o, expected)
    close(final, expected_final)


def test_the_given_state_is_left_as_it_is(operands: Callable[..., Any]) -> None:
    *inputs, state = operands(16, 1, 70, 2, 8, 8, True, "usual")
    before = state.clone()
    chunk_kda(*inputs, state)
    assert torch.equal(state, before)


@given(seed=st.integers(0, 10**6), levels=st.integers(0, 7), scale=st.sampled_from([0.1, 1.0]))
@laws
def test_lower_inverse_inverts(seed: int, levels: int, scale: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    size = 1 << levels
    # Upper triangle included: it must not be read. Entries as of a Gram matrix of unit keys, so that the inverse stays small.
    keys = torch.nn.functional.normalize(torch.randn(3, size, 4, generator=generator, dtype=torch.float64), dim=-1)
    x = scale * keys @ keys.transpose(1, 2)
    eye = torch.eye(size, dtype=torch.float64).expand(3, -1, -1)
    close(lower_inverse(x) @ (eye + x.tril(-1)), eye)


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
