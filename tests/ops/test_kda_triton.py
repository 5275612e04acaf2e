"""Our Triton kernels for one decoded token, in Triton's interpreter, against float64."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("triton")

SCRIPT = Path(__file__).with_name("interpreted_kernels.py")
# bfloat16 outputs are rounded once, to 2^-9; everything before is float32.
TOLERANCES = {"float64": 1e-13, "float32": 1e-5, "bfloat16": 1e-2}
STEPS = [f"{rule} rate 4 {dtype}" for rule in ("kda", "gdn") for dtype in TOLERANCES]
RESETS = ["kda rate 60 float32", "gdn rate 60 float32"]
OTHERS = [f"{name} {dtype}" for name in ("convolution", "norms") for dtype in TOLERANCES]


@pytest.fixture(scope="module")
def errors() -> dict[str, dict[str, float]]:
    """Case -> output -> relative error. In a process of its own: triton reads TRITON_INTERPRET when it is imported."""
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(SCRIPT), "kda", "gdn", "convolution", "norms"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(json.loads(done.stdout))


@pytest.mark.parametrize("case", [*STEPS, *RESETS, *OTHERS])
def test_it_equals_the_float64_form(errors: dict[str, dict[str, float]], case: str) -> None:
    tolerance = TOLERANCES[case.split()[-1]]
    assert {name: error for name, error in errors[case].items() if not error <= tolerance} == {}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("rule", ["kda", "gdn"])
def test_the_state_is_exact_in_float32(errors: dict[str, dict[str, float]], rule: str, dtype: str) -> None:
    """Whatever the activations are: it is read and written in float32."""
    found = errors[f"{rule} rate 4 {dtype}"]
    assert max(found["raw state"], found["ready state"]) < 1e-5


def test_a_state_that_cannot_be_updated_in_place_is_refused() -> None:
    from kleval.ops import kda_triton

    state = torch.zeros(1, 2, 8, 4).transpose(2, 3)
    row = torch.zeros(1, 16)
    with pytest.raises(ValueError, match="contiguous"):
        kda_triton.raw_step(row[:, :8], row[:, :8], row, row[:, :8], row[:, :2], row[0, :2], row[0, :8], state, True)
    assert not kda_triton.fits(torch.zeros(1, 1, 2, 4), torch.zeros(1, 1, 2, 8), state)
