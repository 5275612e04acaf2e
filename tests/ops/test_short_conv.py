"""The short convolution is causal, depthwise, and its tail carries it from chunk to chunk."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from kleval.ops.short_conv import short_conv

laws = settings(max_examples=25, deadline=None)


def naive(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    batch, tokens, channels = x.shape
    width = weight.shape[-1]
    y = torch.zeros_like(x)
    for b in range(batch):
        for t in range(tokens):
            for d in range(channels):
                y[b, t, d] = sum(
                    weight[d, 0, i] * x[b, t - width + 1 + i, d] for i in range(width) if t - width + 1 + i >= 0
                )
    return F.silu(y)


@given(seed=st.integers(0, 10**6), tokens=st.integers(0, 7), channels=st.integers(1, 3), width=st.integers(2, 4))
@laws
def test_it_is_the_naive_loop(seed: int, tokens: int, channels: int, width: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(2, tokens, channels, generator=generator, dtype=torch.float64)
    weight = torch.randn(channels, 1, width, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(short_conv(x, weight)[0], naive(x, weight))


@given(tokens=st.integers(0, 9), cut=st.integers(0, 9))
@laws
def test_two_chunks_are_one(tokens: int, cut: int) -> None:
    generator = torch.Generator().manual_seed(tokens)
    x = torch.randn(2, tokens, 3, generator=generator, dtype=torch.float64)
    weight = torch.randn(3, 1, 4, generator=generator, dtype=torch.float64)
    whole, tail = short_conv(x, weight)
    first, middle = short_conv(x[:, :cut], weight)
    second, end = short_conv(x[:, cut:], weight, middle)
    torch.testing.assert_close(torch.cat([first, second], 1), whole)
    torch.testing.assert_close(end, tail)


def test_one_token_at_a_time_is_the_whole() -> None:
    x, weight = torch.randn(2, 6, 3, dtype=torch.float64), torch.randn(3, 1, 4, dtype=torch.float64)
    whole, last = short_conv(x, weight)
    tail, outputs = None, []
    with torch.no_grad():
        for t in range(6):
            y, tail = short_conv(x[:, t : t + 1], weight, tail)
            outputs.append(y)
    torch.testing.assert_close(torch.cat(outputs, 1), whole)
    torch.testing.assert_close(tail, last)


def test_padding_does_not_enter_the_tail() -> None:
    x, weight = torch.randn(3, 6, 2), torch.randn(2, 1, 4)
    tail = torch.randn(3, 2, 3)
    _, ours = short_conv(x, weight, tail, lengths=torch.tensor([6, 2, 0]))
    for row, length in enumerate((6, 2, 0)):
        expected = torch.cat([tail[row].t(), x[row, :length]])[-3:].t()
        torch.testing.assert_close(ours[row], expected)


def test_gradients_are_right() -> None:
    x = torch.randn(2, 5, 3, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(3, 1, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda a, b: short_conv(a, b)[0], (x, weight))
