"""Random operands for the operators, in float64 unless asked otherwise."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from one_thread import one_thread
from torch import Tensor

__all__ = ["one_thread"]

Operands = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]


@pytest.fixture
def operands() -> Callable[..., Operands]:
    """make(seed, batch, tokens, heads, key, value, per_channel, gates) -> q, k, v, g, beta, state."""

    def make(
        seed: int,
        batch: int,
        tokens: int,
        heads: int,
        key: int,
        value: int,
        per_channel: bool,
        gates: str,
        dtype: torch.dtype = torch.float64,
    ) -> Operands:
        generator = torch.Generator().manual_seed(seed)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator, dtype=dtype)

        q, k = (torch.nn.functional.normalize(normal(batch, tokens, heads, key), dim=-1) for _ in range(2))
        v, state = normal(batch, tokens, heads, value), normal(batch, heads, key, value)
        shape = (batch, tokens, heads, key) if per_channel else (batch, tokens, heads)
        uniform = torch.rand(*shape, generator=generator, dtype=dtype)
        g = {
            "slow": -1e-4 * uniform,
            "usual": -2.0 * uniform,
            "fast": -50.0 * uniform,
            "cliffs": torch.where(uniform < 0.1, -1e3, -0.01 * uniform),
            "none": torch.zeros(*shape, dtype=dtype),
        }[gates]
        beta = torch.rand(batch, tokens, heads, generator=generator, dtype=dtype)
        return q, k, v, g, beta, state

    return make
