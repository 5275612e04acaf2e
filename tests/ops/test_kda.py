"""KDA: one token at a time is the recurrence, and devices without kernels take the torch form."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kleval.ops import available, kda
from kleval.ops.kda import chunk_kda, recurrent_kda, step_kda

GATES = ["slow", "usual", "fast", "cliffs", "none"]


@pytest.mark.parametrize("gates", GATES)
def test_steps_are_the_recurrence(operands: Callable[..., Any], gates: str) -> None:
    q, k, v, g, beta, state = operands(3, 2, 9, 3, 8, 5, True, gates)
    expected, final = recurrent_kda(q, k, v, g, beta, state)
    outputs = []
    for t in range(9):
        o, returned = step_kda(*(x[:, t : t + 1] for x in (q, k, v, g, beta)), state)
        assert returned is state
        outputs.append(o)
    torch.testing.assert_close(torch.cat(outputs, 1), expected, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(state, final, rtol=1e-10, atol=1e-12)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 4), st.integers(1, 40), st.sampled_from(GATES))
def test_a_step_goes_on_after_a_chunk(seed: int, heads: int, tokens: int, gates: str) -> None:
    generator = torch.Generator().manual_seed(seed)
    q, k, v = (torch.randn(1, tokens + 1, heads, 6, generator=generator, dtype=torch.float64) for _ in range(3))
    q, k = (torch.nn.functional.normalize(x, dim=-1) for x in (q, k))
    scale = {"slow": 1e-4, "usual": 2.0, "fast": 50.0, "cliffs": 1e3, "none": 0.0}[gates]
    g = -scale * torch.rand(1, tokens + 1, heads, 6, generator=generator, dtype=torch.float64)
    beta = torch.rand(1, tokens + 1, heads, generator=generator, dtype=torch.float64)
    expected, final = recurrent_kda(q, k, v, g, beta)
    _, state = chunk_kda(*(x[:, :tokens] for x in (q, k, v, g, beta)))
    o, state = step_kda(*(x[:, tokens:] for x in (q, k, v, g, beta)), state)
    torch.testing.assert_close(o, expected[:, tokens:], rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(state, final, rtol=1e-9, atol=1e-10)


def test_activations_keep_their_dtype_and_the_state_its_own(operands: Callable[..., Any]) -> None:
    q, k, v, g, beta, state = operands(1, 2, 1, 2, 8, 8, True, "usual", torch.float32)
    exact, _ = step_kda(q, k, v, g, beta, state.clone())
    o, after = step_kda(q.bfloat16(), k.bfloat16(), v.bfloat16(), g, beta, state)
    assert (o.dtype, after.dtype) == (torch.bfloat16, torch.float32)
    torch.testing.assert_close(o.float(), exact, rtol=3e-2, atol=1e-2)


def test_a_state_of_any_strides_is_updated_in_place(operands: Callable[..., Any]) -> None:
    q, k, v, g, beta, state = operands(2, 2, 1, 3, 4, 4, True, "usual")
    transposed = state.transpose(2, 3).contiguous().transpose(2, 3)
    step_kda(q, k, v, g, beta, transposed)
    step_kda(q, k, v, g, beta, state)
    torch.testing.assert_close(transposed, state)


def test_padding_leaves_the_state_alone(operands: Callable[..., Any]) -> None:
    """What decoders pass for tokens past a row's end: g and beta 0, anything else."""
    q, k, v, g, beta, state = operands(4, 2, 30, 2, 8, 8, True, "usual")
    _, expected = chunk_kda(*(x[:, :11] for x in (q, k, v, g, beta)), state)
    g[:, 11:], beta[:, 11:] = 0.0, 0.0
    _, final = chunk_kda(q, k, v, g, beta, state)
    torch.testing.assert_close(final, expected, rtol=1e-10, atol=1e-12)


def test_the_kernel_is_called_where_it_is_usable_and_fits(
    operands: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """bfloat16 prompts without gradient; float32, single tokens, training and a disabled kernel take the torch form."""
    from kleval.ops import fla_kernels

    calls: list[int] = []

    def kernel(*arguments: Any) -> Any:
        calls.append(arguments[0].shape[1])
        return recurrent_kda(*arguments[:6])

    monkeypatch.setattr(fla_kernels, "chunk_kda", kernel)
    monkeypatch.setattr(kda, "usable", lambda name, device: name == "kda")
    q, k, v, g, beta, state = operands(5, 1, 20, 2, 8, 8, True, "usual", torch.float32)
    half = [x.bfloat16() for x in (q, k, v)]
    with torch.no_grad():
        chunk_kda(*half, g, beta, state)
        assert calls == [20]
        chunk_kda(q, k, v, g, beta, state)
        chunk_kda(*(x[:, :1] for x in half), g[:, :1], beta[:, :1], state)
        chunk_kda(*(x[:, :0] for x in half), g[:, :0], beta[:, :0], state)
    chunk_kda(*half, g, beta, state)
    assert calls == [20]


def test_on_a_cpu_nothing_but_torch_is_in_use() -> None:
    assert set(available.kernels_in_use("cpu").values()) == {"torch"}
