"""MLA: every form of attention is the same attention."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kleval.ops import mla

HEADS, NOPE, ROPE, VALUE, RANK = 2, 4, 4, 3, 5
SCALE = (NOPE + ROPE) ** -0.5
laws = settings(max_examples=25, deadline=None)


def random_case(seed: int, batch: int, tokens: int, before: list[int]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """q, rows with garbage past each row's end, starts, kv_b."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    rows = normal(batch, max(before) + tokens + 7, RANK + ROPE)
    for b, start in enumerate(before):
        rows[b, start + tokens :] = 1e3
    return normal(batch, tokens, HEADS, NOPE + ROPE), rows, torch.tensor(before), normal(HEADS, NOPE + VALUE, RANK)


def expected_attention(q: Tensor, rows: Tensor, starts: Tensor, kv_b: Tensor) -> Tensor:
    """Every row expanded, one mask."""
    k, v = mla.expand(rows[..., :RANK], rows[..., RANK:], kv_b, NOPE)
    position = starts[:, None] + torch.arange(q.shape[1])
    unseen = torch.arange(rows.shape[1]) > position[..., None]  # [B, T, S]
    scores = torch.einsum("bthd,bhsd->bhts", q, k) * SCALE
    return torch.einsum("bhts,bhsd->bthd", scores.masked_fill(unseen[:, None], -torch.inf).softmax(-1), v)


@given(
    seed=st.integers(0, 10**6),
    tokens=st.sampled_from([1, 2, 5, 130, 200]),
    before=st.lists(st.integers(0, 150), min_size=1, max_size=3),
    block=st.sampled_from([16, 64, 150, 1024]),
)
@laws
def test_blockwise_prefill_is_plain_attention(seed: int, tokens: int, before: list[int], block: int) -> None:
    case = random_case(seed, len(before), tokens, before)
    ours = mla.prefill_attention(*case, NOPE, SCALE, block=block)
    torch.testing.assert_close(ours, expected_attention(*case), rtol=1e-9, atol=1e-11)


@given(
    seed=st.integers(0, 10**6),
    tokens=st.integers(1, 4),
    before=st.lists(st.integers(0, 60), min_size=1, max_size=3),
)
@laws
def test_absorbed_decode_is_expanded_attention(seed: int, tokens: int, before: list[int]) -> None:
    case = random_case(seed, len(before), tokens, before)
    ours = mla.absorbed_attention(*case, NOPE, SCALE)
    torch.testing.assert_close(ours, expected_attention(*case), rtol=1e-9, atol=1e-11)


@given(tokens=st.sampled_from([1, 3, 8, 9, 20]), block=st.sampled_from([1, 4, 8, 128]))
@laws
def test_training_attention_is_plain_attention_and_so_is_its_gradient(tokens: int, block: int) -> None:
    generator = torch.Generator().manual_seed(tokens)
    q, k = (torch.randn(2, 3, tokens, 8, generator=generator, dtype=torch.float64) for _ in range(2))
    v = torch.randn(2, 3, tokens, 5, generator=generator, dtype=torch.float64)
    inputs = [x.requires_grad_() for x in (q, k, v)]
    ours = mla.causal_attention(*inputs, 0.3, block=block)
    mask = torch.ones(tokens, tokens).triu(1).bool()
    expected = (q @ k.transpose(-1, -2) * 0.3).masked_fill(mask, -torch.inf).softmax(-1) @ v
    torch.testing.assert_close(ours, expected)
    for a, b in zip(*(torch.autograd.grad(o.square().sum(), inputs) for o in (ours, expected)), strict=True):
        torch.testing.assert_close(a, b)


@given(shift=st.integers(0, 1000), a=st.integers(0, 50), b=st.integers(0, 50))
@laws
def test_rope_scores_depend_on_distance_alone(shift: int, a: int, b: int) -> None:
    generator = torch.Generator().manual_seed(a * 51 + b)
    q, k = (torch.randn(1, 1, 1, 8, generator=generator, dtype=torch.float64) for _ in range(2))

    def score(at_q: int, at_k: int) -> float:
        turned = [mla.apply_rope(x, torch.tensor([[at]]), 10000.0) for x, at in ((q, at_q), (k, at_k))]
        return float((turned[0] * turned[1]).sum())

    assert abs(score(a, b) - score(a + shift, b + shift)) < 1e-9


def test_rope_turns_neighbouring_components_and_keeps_lengths() -> None:
    x = torch.zeros(1, 1, 1, 4, dtype=torch.float64)
    x[..., 0] = 2.0
    turned = mla.apply_rope(x, torch.tensor([[1]]), 10000.0).flatten()
    torch.testing.assert_close(
        turned,
        2
        * torch.tensor([1.0, 1, 0, 0]).double()
        * torch.tensor([torch.cos(torch.tensor(1.0).double()), torch.sin(torch.tensor(1.0).double()), 0, 0]).double(),
    )
    assert abs(float(turned.norm()) - 2) < 1e-12
