"""The rule behind sampled prefill: exact for what it claims to be exact for, bounded where it is not."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kleval.profiler.integrate import integrate, interpolate, positions_for, sample_positions

LADDER = (4096, 16384, 65536, 262144, 1048576)


def truth(cost, ctx: int, chunk: int) -> float:
    """Every chunk of a prompt, one by one."""
    full = sum(cost(start) for start in range(0, ctx - chunk + 1, chunk))
    return full + cost(ctx - ctx % chunk) * (ctx % chunk) / chunk


@given(
    st.floats(1e-3, 10),
    st.floats(0, 1e-3),
    st.integers(1, 64),
    st.lists(st.integers(128, 100_000), min_size=1, max_size=4),
)
@settings(max_examples=60, deadline=None)
def test_a_linear_cost_is_integrated_exactly(a: float, b: float, chunk: int, ctxs: list[int]) -> None:
    positions = sample_positions(ctxs, chunk)
    times = {p: a + b * p for p in positions}
    for ctx in ctxs:
        assert integrate(times, ctx, chunk) == pytest.approx(truth(lambda p: a + b * p, ctx, chunk), rel=1e-9)


@pytest.mark.parametrize("ctx", LADDER)
def test_a_purely_quadratic_cost_is_a_little_too_much_and_never_too_little(ctx: int) -> None:
    chunk = 512
    times = {p: float(p) ** 2 for p in sample_positions(LADDER, chunk)}
    ratio = integrate(times, ctx, chunk) / truth(lambda p: float(p) ** 2, ctx, chunk)
    assert 1 <= ratio <= (1.06 if ctx > 4096 else 1.11)


def test_noise_of_the_nodes_is_not_amplified() -> None:
    chunk, drawn = 512, random.Random(1)
    positions = sample_positions(LADDER, chunk)
    exact = truth(lambda p: 0.05 + 2e-5 * p, 1048576, chunk)
    for _ in range(50):
        times = {p: (0.05 + 2e-5 * p) * drawn.uniform(0.9, 1.1) for p in positions}
        assert integrate(times, 1048576, chunk) == pytest.approx(exact, rel=0.1)


@given(st.lists(st.integers(512, 1 << 20), min_size=1, max_size=6), st.sampled_from([64, 512]))
@settings(max_examples=60, deadline=None)
def test_positions_are_chunk_starts_inside_every_length(ctxs: list[int], chunk: int) -> None:
    positions = sample_positions(ctxs, chunk)
    assert positions[0] == 0
    assert all(p % chunk == 0 for p in positions)
    for ctx in ctxs:
        own = positions_for(ctx, chunk, positions)
        assert own[-1] + chunk <= ctx < own[-1] + 2 * chunk


def test_longer_times_do_not_reach_into_shorter_prompts() -> None:
    times = {0: 1.0, 512: 1.0, 7680: 100.0}
    assert integrate(times, 1024, 512) == 2.0


def test_a_partial_last_chunk_counts_by_its_share() -> None:
    assert integrate({0: 1.0, 100: 1.0}, 250, 100) == pytest.approx(2.5)


def test_one_node_is_a_constant() -> None:
    assert interpolate({0: 3.0}, 5000) == 3.0


def test_less_than_one_chunk_cannot_be_sampled() -> None:
    with pytest.raises(ValueError, match="less than one chunk"):
        sample_positions([100], 512)
    with pytest.raises(ValueError, match="less than one chunk"):
        integrate({0: 1.0}, 100, 512)
