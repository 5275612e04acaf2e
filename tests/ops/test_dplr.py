"""General DPLR: its chunkwise form is its recurrence, and KDA is one case of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kleval.ops import dplr
from kleval.ops.dplr import chunk_dplr, recurrent_dplr
from kleval.ops.kda import chunk_kda, recurrent_kda

GATES = ["slow", "usual", "fast", "cliffs", "none"]
SCALES = {"slow": 1e-4, "usual": 2.0, "fast": 50.0, "cliffs": 1e3, "none": 0.0}


def draw(seed: int, batch: int, tokens: int, heads: int, key: int, value: int, gates: str) -> tuple[Tensor, ...]:
    """q, k, v, a, b, g, state with a and b free of k; of a size at which the state neither grows nor dies."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    q, k, a, b = (torch.nn.functional.normalize(normal(batch, tokens, heads, key), dim=-1) for _ in range(4))
    v, state = normal(batch, tokens, heads, value), normal(batch, heads, key, value)
    g = -SCALES[gates] * torch.rand(batch, tokens, heads, key, generator=generator, dtype=torch.float64)
    return q, k, v, a, b, g, state


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 10**6),
    st.integers(1, 2),
    st.integers(1, 70),
    st.sampled_from([2, 4, 8, 16, 32, 64]),
    st.sampled_from(GATES),
)
def test_chunks_are_the_recurrence(seed: int, batch: int, tokens: int, chunk: int, gates: str) -> None:
    *operands, state = draw(seed, batch, tokens, 2, 6, 5, gates)
    expected, final = recurrent_dplr(*operands, state)
    o, after = chunk_dplr(*operands, state, chunk_size=chunk)
    torch.testing.assert_close(o, expected, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(after, final, rtol=1e-9, atol=1e-9)


def test_the_recurrence_is_the_matrix_it_says() -> None:
    """S_t = (Diag(exp g) - a b^T) S + k v^T with the matrix written out."""
    q, k, v, a, b, g, state = (x[0] for x in draw(5, 1, 1, 1, 4, 3, "usual"))
    move = torch.diag(g[0, 0].exp()) - torch.outer(a[0, 0], b[0, 0])
    expected = move @ state[0] + torch.outer(k[0, 0], v[0, 0])
    o, after = recurrent_dplr(*(x.unsqueeze(0) for x in (q, k, v, a, b, g)), state.unsqueeze(0))
    torch.testing.assert_close(after[0, 0], expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(o[0, 0, 0], expected.T @ q[0, 0] * 0.5, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("gates", GATES)
def test_kda_is_a_special_case(operands: Callable[..., Any], gates: str) -> None:
    q, k, v, g, beta, state = operands(7, 2, 45, 3, 8, 5, True, gates)
    strength = beta.unsqueeze(-1)
    special = (q, k, strength * v, strength * k, g.exp() * k, g, state)
    expected, final = recurrent_kda(q, k, v, g, beta, state)
    for form in (recurrent_dplr, chunk_dplr):
        o, after = form(*special)
        torch.testing.assert_close(o, expected, rtol=1e-9, atol=1e-10)
        torch.testing.assert_close(after, final, rtol=1e-9, atol=1e-10)


def test_cutting_a_sequence_does_not_matter() -> None:
    *operands, state = draw(11, 2, 75, 2, 8, 8, "usual")
    whole, final = chunk_dplr(*operands, state)
    first, between = chunk_dplr(*(x[:, :33] for x in operands), state)
    second, after = chunk_dplr(*(x[:, 33:] for x in operands), between)
    torch.testing.assert_close(torch.cat([first, second], 1), whole, rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(after, final, rtol=1e-9, atol=1e-10)


def test_single_precision_is_as_exact_as_that_of_kda(operands: Callable[..., Any]) -> None:
    q, k, v, g, beta, state = operands(3, 1, 256, 2, 16, 16, True, "usual", torch.float32)
    wide = [x.double() for x in (q, k, v, g, beta, state)]
    expected, _ = recurrent_kda(*wide)
    of_kda = (chunk_kda(q, k, v, g, beta, state)[0].double() - expected).norm() / expected.norm()
    strength = beta.unsqueeze(-1)
    o, after = chunk_dplr(q, k, strength * v, strength * k, g.exp() * k, g, state)
    error = (o.double() - expected).norm() / expected.norm()
    assert after.dtype == torch.float32
    assert error < 10 * of_kda + 1e-6


def test_activations_keep_their_dtype_and_the_inputs_their_values() -> None:
    *operands, state = draw(2, 1, 40, 1, 8, 8, "usual")
    before = [x.clone() for x in (*operands, state)]
    chunk_dplr(*operands, state)
    assert all(torch.equal(x, y) for x, y in zip((*operands, state), before, strict=True))
    o, after = chunk_dplr(*(x.bfloat16() for x in operands), state.float())
    assert (o.dtype, after.dtype) == (torch.bfloat16, torch.float32)


@pytest.mark.parametrize("chunk", [0, 1, 3, -2, 48])
def test_a_chunk_is_a_power_of_two(chunk: int) -> None:
    *operands, state = draw(2, 1, 4, 1, 2, 2, "usual")
    with pytest.raises(ValueError, match="power of two"):
        chunk_dplr(*operands, state, chunk_size=chunk)


def test_no_tokens_change_nothing() -> None:
    *operands, state = draw(2, 1, 4, 2, 3, 3, "usual")
    o, after = chunk_dplr(*(x[:, :0] for x in operands), state)
    assert o.shape == (1, 0, 2, 3)
    assert torch.equal(after, state)


def test_flas_recurrence_is_ours_with_a_and_b_exchanged() -> None:
    """What `_by_fla` relies on, checked on fla-core's own naive form: its a reads (and is added), its b writes."""
    naive = pytest.importorskip("fla.ops.generalized_delta_rule.dplr.naive")
    *operands, state = draw(9, 2, 20, 2, 8, 8, "usual")
    q, k, v, a, b, g = (x.float() for x in operands)
    expected, final = recurrent_dplr(q, k, v, a, b, g, state.float())
    o, after = naive.dplr_recurrence(*(x.transpose(1, 2) for x in (q, k, v, -b, a, g)), state.float())
    torch.testing.assert_close(o.transpose(1, 2), expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(after, final, rtol=1e-4, atol=1e-4)


def test_pieces_of_flas_kernel_carry_the_state(monkeypatch: pytest.MonkeyPatch) -> None:
    """`_by_fla` with the reference in the kernel's place: operands, pieces and states arrive as they should."""
    dplr_module = pytest.importorskip("fla.ops.generalized_delta_rule.dplr")
    lengths = []

    def kernel(*tensors: Tensor, initial_state: Tensor | None, output_final_state: bool) -> tuple[Tensor, Tensor]:
        q, k, v, a, b, g = tensors
        lengths.append(q.shape[1])
        assert output_final_state
        return recurrent_dplr(q, k, v, b, -a, g, initial_state)

    monkeypatch.setattr(dplr_module, "chunk_dplr_delta_rule", kernel)
    monkeypatch.setattr("kleval.ops.fla_kernels.CALL_TOKENS", 64)
    *operands, state = (x.float() for x in draw(4, 2, 75, 2, 8, 8, "usual"))
    expected, final = recurrent_dplr(*operands, state)
    o, after = dplr._by_fla(*operands, state)
    assert lengths == [32, 32, 11]
    torch.testing.assert_close(o, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(after, final, rtol=1e-4, atol=1e-4)
