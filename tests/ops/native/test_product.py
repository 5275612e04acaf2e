"""Matrix product of the C++ library against torch's."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kleval.ops.native.loading import native
from kleval.ops.native.product import product


@given(st.integers(1, 40), st.integers(1, 70), st.integers(1, 70))
@settings(max_examples=40, deadline=None)
def test_any_shape_is_torchs_product(rows: int, outputs: int, inputs: int) -> None:
    if native() is None:
        pytest.skip("no C++ library here")
    x, weight = torch.randn(rows, inputs), torch.randn(outputs, inputs)
    run = product(x, weight)
    assert run is not None
    torch.testing.assert_close(run(), (x.double() @ weight.double().T).float(), rtol=1e-4, atol=1e-4)


def test_without_a_library_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KLEVAL_NATIVE", "off")
    assert product(torch.ones(1, 1), torch.ones(1, 1)) is None
