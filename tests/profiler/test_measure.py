"""Clocks and percentiles."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kleval.profiler.measure import Clock
from kleval.quantiles import percentile


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=40), st.floats(0, 1))
@settings(max_examples=60, deadline=None)
def test_percentiles_are_numpys(values: list[float], share: float) -> None:
    assert percentile(values, share) == pytest.approx(float(np.quantile(values, share)), rel=1e-9, abs=1e-9)


def test_no_values_have_no_percentile() -> None:
    with pytest.raises(ValueError, match="no values"):
        percentile([], 0.5)


def test_every_piece_of_work_is_run_once_in_order_and_timed() -> None:
    ran: list[int] = []
    times = Clock(torch.device("cpu")).each([lambda i=i: ran.append(i) for i in range(4)])
    assert ran == [0, 1, 2, 3]
    assert len(times) == 4
    assert all(t >= 0 for t in times)
