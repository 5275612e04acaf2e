"""Attention to a block of keys: every kernel gives the same result and log-sum-exp, and blocks merge exactly."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kleval.ops import attend as attend_module
from kleval.ops.attend import _agrees, attend_cpu, attend_plain, merge

laws = settings(max_examples=25, deadline=None)


def operands(seed: int, tokens: int, keys: int, widths: tuple[int, int], dtype: torch.dtype) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    shapes = ((2, 3, tokens, widths[0]), (2, 3, keys, widths[0]), (2, 3, keys, widths[1]))
    return tuple(torch.randn(s, generator=generator, dtype=torch.float64).to(dtype) for s in shapes)


@given(
    seed=st.integers(0, 10**6),
    tokens=st.sampled_from([1, 2, 70]),
    keys=st.sampled_from([1, 40, 600]),
    widths=st.sampled_from([(8, 8), (8, 5), (4, 12)]),
    causal=st.booleans(),
)
@laws
def test_the_cpu_kernel_is_plain_attention(
    seed: int, tokens: int, keys: int, widths: tuple[int, int], causal: bool
) -> None:
    q, k, v = operands(seed, keys if causal else tokens, keys, widths, torch.float64)
    ours, expected = attend_cpu(q, k, v, 0.4, causal), attend_plain(q, k, v, 0.4, causal)
    for a, b in zip(ours, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-11)


@given(seed=st.integers(0, 10**6), cuts=st.lists(st.integers(1, 39), min_size=1, max_size=4))
@laws
def test_blocks_merge_to_the_whole_in_any_order(seed: int, cuts: list[int]) -> None:
    q, k, v = operands(seed, 5, 40, (8, 6), torch.float64)
    out, lse = torch.zeros(2, 3, 5, 6, dtype=torch.float64), torch.full((2, 3, 5), -torch.inf, dtype=torch.float64)
    parts = zip(*(x.tensor_split(sorted(set(cuts)), 2) for x in (k, v)), strict=True)
    for part_k, part_v in sorted(parts, key=lambda part: float(part[0].sum())):
        merge(out, lse, *attend_plain(q, part_k, part_v, 0.4))
    for a, b in zip((out, lse), attend_plain(q, k, v, 0.4), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-11)


def test_scores_of_thousands_neither_overflow_nor_vanish() -> None:
    q, k, v = operands(0, 4, 9, (8, 8), torch.float32)
    out, lse = torch.zeros(2, 3, 4, 8), torch.full((2, 3, 4), -torch.inf)
    for part in range(3):
        merge(out, lse, *attend_cpu(q, k[:, :, part::3], v[:, :, part::3], 1000.0))
    torch.testing.assert_close(
        out, attend_plain(q.double(), k.double(), v.double(), 1000.0)[0].float(), rtol=1e-3, atol=1e-3
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_a_device_kernel_is_believed_only_if_it_agrees(dtype: torch.dtype) -> None:
    """The check that chooses among CUDA kernels, on kernels that run here: right ones pass, subtly wrong ones do not."""

    def base_two(q: Tensor, k: Tensor, v: Tensor, scale: float, causal: bool) -> tuple[Tensor, Tensor]:
        out, lse = attend_cpu(q, k, v, scale, causal)
        return out, lse / 0.6931

    def never_causal(q: Tensor, k: Tensor, v: Tensor, scale: float, causal: bool) -> tuple[Tensor, Tensor]:
        return attend_plain(q, k, v, scale, False)

    def raises(q: Tensor, k: Tensor, v: Tensor, scale: float, causal: bool) -> tuple[Tensor, Tensor]:
        raise RuntimeError("no kernel for these widths")

    candidates = (attend_cpu, attend_plain, base_two, never_causal, raises)
    agrees = [_agrees(candidate, torch.device("cpu"), dtype, 24, 16) for candidate in candidates]
    assert agrees == [True, True, False, False, False]


def test_a_call_that_a_kernel_refuses_goes_to_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel that suits the widths but not these lengths; what is out of memory is no refusal."""
    asked: list[str] = []

    def short_only(q: Tensor, k: Tensor, v: Tensor, scale: float, causal: bool) -> tuple[Tensor, Tensor]:
        asked.append("short")
        if k.shape[2] > 250:
            raise RuntimeError("no plan for this length")
        return attend_cpu(q, k, v, scale, causal)

    def second(q: Tensor, k: Tensor, v: Tensor, scale: float, causal: bool) -> tuple[Tensor, Tensor]:
        asked.append("second")
        if causal:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return attend_cpu(q, k, v, scale, causal)

    def choose(device: int, dtype: torch.dtype, width: int, value: int, refused: tuple[object, ...] = ()) -> object:
        return next(kernel for kernel in (short_only, second, attend_plain) if kernel not in refused)

    monkeypatch.setattr(attend_module, "cuda_kernel", choose)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    q, k, v = operands(0, 5, 300, (8, 6), torch.float64)
    for a, b in zip(attend_module._attend_cuda(q, k, v, 0.4, False), attend_plain(q, k, v, 0.4), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-11)
    assert asked == ["short", "second"]
    with pytest.raises(torch.OutOfMemoryError):
        attend_module._attend_cuda(q, k, v, 0.4, True)
