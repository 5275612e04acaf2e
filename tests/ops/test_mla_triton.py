"""The Triton decode kernels, run by Triton's interpreter in a process of its own, against float64."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

needs_triton = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")
TOLERANCE = {"float32": 1e-5, "bfloat16": 1e-2}


@needs_triton
def test_decode_over_ragged_segments_is_absorbed_attention() -> None:
    """Rows of 1 to 900, widths that are no powers of two, more heads than a block, empty ranges, several segments."""
    script = Path(__file__).with_name("interpreted_mla.py")
    environment = os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, script, "0"], capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr
    worst = json.loads(done.stdout)
    for dtype, tolerance in TOLERANCE.items():
        assert set(worst[dtype]) == {"appended", "decoded", "infinite", "mixer"}
        assert worst[dtype]["appended"] == worst[dtype]["infinite"] == 0
        assert worst[dtype]["decoded"] <= tolerance
        assert worst[dtype]["mixer"] <= tolerance


@needs_triton
@given(programs=st.integers(1, 600), sms=st.sampled_from([16, 108, 132]))
@settings(max_examples=50, deadline=None)
def test_ranges_fill_rounds_of_processors(programs: int, sms: int) -> None:
    from kleval.ops.mla_triton import split_count

    ranges = split_count(programs, sms)
    assert 1 <= ranges <= 4 * sms
    rounds = -(-programs * ranges // sms)
    assert programs * ranges / (rounds * sms) >= min(0.5, programs / sms)
    if programs == 1:
        assert ranges == sms


@needs_triton
@pytest.mark.parametrize(("width", "size", "rows"), [(576, 2, 64), (576, 4, 16), (160, 2, 64), (9000, 4, 16)])
def test_tiles_fit_shared_memory(width: int, size: int, rows: int) -> None:
    from kleval.ops.mla_triton import tile_rows

    assert tile_rows(width, size) == rows


def test_mla_needs_neither_triton_nor_a_driver() -> None:
    """The model and its operators import, and decode on a CPU, where triton cannot be imported at all."""
    program = """
import sys; sys.modules['triton'] = None
import torch
from kleval.models.cache import HybridCache
from kleval.models.decoder import Decoder
from kleval.models.sizes import preset
config = preset('mla', 'nano', vocab_size=16)
decoder = Decoder(config); decoder.init_weights(0)
cache = HybridCache(config, 1)
with torch.inference_mode():
    out = [decoder.hidden(torch.tensor([[1]]), cache) for _ in range(2)]
assert cache.lengths_host == [2] and bool(out[1].isfinite().all())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
