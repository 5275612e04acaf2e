"""Memory from the configuration: the published model's table, the searches, and no torch."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kleval.profiler.memory import Formats, largest, memory_rows
from kleval.types import UsageError

GIB = 2**30
PUBLISHED = {131072: (0.984, 3.797), 262144: (1.969, 7.594), 524288: (3.938, 15.19), 1048576: (7.875, 30.38)}


@pytest.mark.parametrize("ctx", PUBLISHED)
def test_the_published_model_needs_what_its_paper_implies(ctx: int) -> None:
    kimi, mla = memory_rows(["kimi-linear@48b-a3b", "mla@48b-a3b"], [ctx])
    assert (kimi["latent_bytes"] / GIB, mla["latent_bytes"] / GIB) == (
        pytest.approx(PUBLISHED[ctx][0], abs=6e-4),
        pytest.approx(PUBLISHED[ctx][1], abs=6e-3),
    )
    assert kimi["recurrent_bytes"] == 40 * 2**20
    assert kimi["latent_bytes"] // ctx == 8064
    assert mla["latent_bytes"] // ctx == 31104


def test_the_saving_is_of_20_layers_in_27() -> None:
    (row,) = memory_rows(["kimi-linear@48b-a3b"], [1 << 20])
    assert f"{row['latent_saving']:.1%}" == "74.1%"
    assert row["saving"] < row["latent_saving"] < 0.75


def test_batches_and_dtypes_scale_what_they_should() -> None:
    (one,) = memory_rows(["kimi-linear@nano"], [4096], 1, Formats("bfloat16"))
    (five,) = memory_rows(["kimi-linear@nano"], [4096], 5, Formats("float32"))
    assert five["latent_bytes"] == 10 * one["latent_bytes"]
    assert five["recurrent_bytes"] == 5 * one["recurrent_bytes"]
    assert five["conv_bytes"] == 10 * one["conv_bytes"]


@given(st.integers(0, 5000), st.integers(0, 50), st.integers(1, 5000), st.integers(0, 10**7), st.integers(1, 3000))
@settings(max_examples=200, deadline=None)
def test_the_largest_batch_is_the_one_that_division_gives(
    fixed: int, per_token: int, ctx: int, budget: int, most: int
) -> None:
    one = fixed + per_token * ctx
    expected = most if one == 0 else min(budget // one, most)
    assert largest(lambda n: n * one, budget, most) == expected


@given(st.integers(0, 5000), st.integers(1, 50), st.integers(1, 20), st.integers(0, 10**9))
@settings(max_examples=200, deadline=None)
def test_the_largest_context_just_fits(fixed: int, per_token: int, batch: int, budget: int) -> None:
    ctx = largest(lambda n: batch * (fixed + per_token * n), budget)
    fits = [batch * (fixed + per_token * n) <= budget for n in (ctx, ctx + 1)]
    assert fits == ([True, False] if ctx else [fits[0], False])


def test_weights_and_states_share_a_budget() -> None:
    (row,) = memory_rows(["mla@48b-a3b"], [1 << 20], budget=139 * GIB)
    assert row["largest_batch"] == (139 * GIB - row["weights_bytes"]) // row["state_bytes"]
    assert row["state_batch"] == 139 * GIB // row["state_bytes"]
    (tight,) = memory_rows(["mla@48b-a3b"], [1 << 20], budget=40 * GIB)
    assert (tight["largest_batch"], tight["largest_ctx"], tight["state_batch"]) == (0, 0, 1)


@pytest.mark.parametrize(
    ("models", "ctxs", "batch", "said"),
    [
        (["kimi-liner"], [4096], 1, "did you mean"),
        (["mla@48b"], [4096], 1, "size"),
        (["mla"], [0], 1, "context length"),
        (["mla"], [4096], 0, "--batch"),
    ],
)
def test_bad_input_is_one_line(models: list[str], ctxs: list[int], batch: int, said: str) -> None:
    with pytest.raises(UsageError, match=said) as error:
        memory_rows(models, ctxs, batch)
    assert "\n" not in str(error.value)


def test_no_torch_is_needed() -> None:
    script = (
        "import sys; from kleval.profiler.memory import memory_rows; memory_rows(['kimi-linear@48b-a3b'], [1 << 20]);"
        "assert 'torch' not in sys.modules and 'scipy' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
