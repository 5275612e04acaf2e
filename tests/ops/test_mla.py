"""MLA: every form of attention is the same attention."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from kleval.ops import mla
from kleval.ops.attend import Attend, attend, attend_plain
from kleval.ops.mla_training import causal_attention

HEADS, NOPE, ROPE, VALUE, RANK = 2, 4, 4, 3, 5
SCALE = (NOPE + ROPE) ** -0.5
laws = settings(max_examples=25, deadline=None)


Case = tuple[Tensor, list[list[Tensor]], list[int], Tensor]


def random_case(seed: int, tokens: int, before: list[int], counts: list[int] | None = None) -> Case:
    """q, rows in segments of random lengths, counts, kv_b."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    counts = [tokens] * len(before) if counts is None else counts
    rows = []
    for start, count in zip(before, counts, strict=True):
        cuts = sorted(int(c) for c in torch.randint(1, start + count + 1, (2,), generator=generator))
        whole = normal(start + count, RANK + ROPE)
        rows.append([part for part in whole.tensor_split(cuts) if len(part)])
    return normal(len(before), tokens, HEADS, NOPE + ROPE), rows, counts, normal(HEADS, NOPE + VALUE, RANK)


def expected_attention(q: Tensor, rows: list[list[Tensor]], counts: list[int], kv_b: Tensor) -> Tensor:
    """Row by row, everything expanded, one mask; 0 for padding."""
    out = q.new_zeros(*q.shape[:3], VALUE)
    for b, count in enumerate(counts):
        whole = torch.cat(rows[b])
        k, v = mla.expand(whole[None], kv_b, NOPE)
        unseen = torch.ones(count, len(whole)).triu(len(whole) - count + 1).bool()
        scores = (torch.einsum("thd,hsd->hts", q[b, :count], k[0]) * SCALE).masked_fill(unseen, -torch.inf)
        out[b, :count] = torch.einsum("hts,hsd->thd", scores.softmax(-1), v[0])
    return out


@pytest.mark.parametrize("kernel", [attend, attend_plain])
@given(
    seed=st.integers(0, 10**6),
    tokens=st.sampled_from([1, 2, 5, 130, 200]),
    before=st.lists(st.sampled_from([0, 1, 100, 100, 150]), min_size=1, max_size=3),
    block=st.sampled_from([16, 64, 150, None]),
)
@laws
def test_blockwise_prefill_is_plain_attention(
    kernel: Attend, seed: int, tokens: int, before: list[int], block: int | None
) -> None:
    case = random_case(seed, tokens, before)
    ours = mla.prefill_attention(*case, NOPE, SCALE, block=block, attend_block=kernel)
    torch.testing.assert_close(ours, expected_attention(*case), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("kernel", [attend, attend_plain])
@given(
    seed=st.integers(0, 10**6),
    tokens=st.integers(1, 6),
    before=st.lists(st.integers(0, 60), min_size=1, max_size=3),
)
@laws
def test_absorbed_form_is_expanded_attention(kernel: Attend, seed: int, tokens: int, before: list[int]) -> None:
    case = random_case(seed, tokens, before)
    ours = mla.absorbed_attention(*case, NOPE, SCALE, attend_block=kernel)
    torch.testing.assert_close(ours, expected_attention(*case), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("form", [mla.absorbed_attention, mla.prefill_attention])
@given(seed=st.integers(0, 10**6), counts=st.lists(st.integers(0, 9), min_size=2, max_size=4))
@laws
def test_padding_gives_nothing_and_changes_nothing(form: Callable[..., Tensor], seed: int, counts: list[int]) -> None:
    case = random_case(seed, 9, [3 * n + 1 for n in counts], counts)
    torch.testing.assert_close(form(*case, NOPE, SCALE), expected_attention(*case), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("tokens", [1, 3])
def test_long_rows_shared_by_threads_are_one_attention(tokens: int, threads: int) -> None:
    case = random_case(tokens, tokens, [mla.LONG_TOKENS + 1001])
    rows = [[torch.cat(case[1][0])]]
    torch.set_num_threads(threads)
    try:
        ours = mla.absorbed_attention(case[0], rows, *case[2:], NOPE, SCALE)
    finally:
        torch.set_num_threads(1)
    torch.testing.assert_close(ours, expected_attention(*case), rtol=1e-9, atol=1e-11)


@given(tokens=st.integers(1, 400))
@laws
def test_the_chosen_form_is_the_same_attention(tokens: int) -> None:
    case = random_case(tokens, tokens, [40])
    ours = mla.cached_attention(*case, NOPE, SCALE)
    torch.testing.assert_close(ours, expected_attention(*case), rtol=1e-9, atol=1e-11)


def test_prefill_of_a_long_prompt_expands_one_block_at_a_time() -> None:
    """8k queries and rows at once: no tensor is larger than the queries or the expanded rows of one block."""
    largest = 0

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            nonlocal largest
            out = func(*args, **(kwargs or {}))
            for tensor in out if isinstance(out, tuple | list) else [out]:
                if isinstance(tensor, Tensor):
                    largest = max(largest, tensor.untyped_storage().nbytes())
            return out

    q, rows, counts, kv_b = random_case(0, 8192, [0])
    with Watch():
        mla.prefill_attention(q, rows, counts, kv_b, NOPE, SCALE)
    assert largest <= max(HEADS * mla.BLOCK_TOKENS * (NOPE + max(ROPE, VALUE)) * 8, q.numel() * 8)


def test_few_tokens_are_absorbed_where_that_is_less_work() -> None:
    """At the published shape up to about 170 tokens; the CPU kernel, which pads values to the width of keys, has the same bound."""
    q, kv_b = torch.empty(1, 1, 32, 192), torch.empty(32, 256, 512)
    assert [mla.absorbed_is_cheaper(tokens, q, kv_b, 128) for tokens in (1, 160, 256, 4096)] == [
        True,
        True,
        False,
        False,
    ]


@given(tokens=st.sampled_from([1, 3, 8, 9, 20]), block=st.sampled_from([1, 4, 8, 128]))
@laws
def test_training_attention_is_plain_attention_and_so_is_its_gradient(tokens: int, block: int) -> None:
    generator = torch.Generator().manual_seed(tokens)
    q, k = (torch.randn(2, 3, tokens, 8, generator=generator, dtype=torch.float64) for _ in range(2))
    v = torch.randn(2, 3, tokens, 5, generator=generator, dtype=torch.float64)
    inputs = [x.requires_grad_() for x in (q, k, v)]
    ours = causal_attention(*inputs, 0.3, block=block)
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
