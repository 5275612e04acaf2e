"""GDN: one token at a time is the recurrence with one decay per head, which is KDA with equal decays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from kleval.ops import gdn
from kleval.ops.gdn import chunk_gdn, recurrent_gdn, step_gdn
from kleval.ops.kda import step_kda


@pytest.mark.parametrize("gates", ["slow", "usual", "cliffs", "none"])
def test_steps_are_the_recurrence(operands: Callable[..., Any], gates: str) -> None:
    q, k, v, g, beta, state = operands(3, 2, 9, 3, 8, 5, False, gates)
    expected, final = recurrent_gdn(q, k, v, g, beta, state)
    outputs = []
    for t in range(9):
        o, returned = step_gdn(*(x[:, t : t + 1] for x in (q, k, v, g, beta)), state)
        assert returned is state
        outputs.append(o)
    torch.testing.assert_close(torch.cat(outputs, 1), expected, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(state, final, rtol=1e-10, atol=1e-12)


def test_one_decay_per_head_is_equal_decays_per_channel(operands: Callable[..., Any]) -> None:
    q, k, v, g, beta, state = operands(6, 2, 1, 3, 8, 5, False, "usual")
    o, _ = step_gdn(q, k, v, g, beta, one := state.clone())
    same, _ = step_kda(q, k, v, g.unsqueeze(-1).expand_as(q).contiguous(), beta, state)
    torch.testing.assert_close(o, same)
    torch.testing.assert_close(one, state)


def test_the_kernel_is_called_where_it_is_usable_and_fits(
    operands: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from kleval.ops import fla_kernels

    shapes: list[tuple[int, ...]] = []

    def kernel(*arguments: Any) -> Any:
        shapes.append(tuple(arguments[3].shape))
        return recurrent_gdn(*arguments)

    monkeypatch.setattr(fla_kernels, "chunk_gdn", kernel)
    monkeypatch.setattr(gdn, "usable", lambda name, device: name == "gdn")
    q, k, v, g, beta, state = operands(5, 1, 20, 2, 8, 8, False, "usual", torch.float32)
    with torch.no_grad():
        chunk_gdn(q.bfloat16(), k.bfloat16(), v.bfloat16(), g, beta, state)
        chunk_gdn(q, k, v, g, beta, state)
    assert shapes == [(1, 20, 2)]
