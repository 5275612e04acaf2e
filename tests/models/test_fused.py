"""The decode step through our kernels, in Triton's interpreter: the decoder's own forward pass, to rounding."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")
pytestmark = pytest.mark.slow  # a million operations, each interpreted

SCRIPT = Path(__file__).with_name("interpreted_stepper.py")
EXACT = ["kimi-linear", "gdn-h", "mla", "kimi-linear-rope", "kimi-linear moe", "gdn-h moe"]
GATES = "bounded, full-rank gates"
EXPERTS = ["no shared expert", "two shared experts", "many rows"]


@pytest.fixture(scope="module")
def errors() -> dict[str, dict[str, float]]:
    """In a process of its own: triton reads TRITON_INTERPRET when it is imported."""
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, str(SCRIPT)], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(json.loads(done.stdout))


@pytest.mark.parametrize("case", [*EXACT, *EXPERTS, GATES])
def test_it_is_the_forward_pass(errors: dict[str, dict[str, float]], case: str) -> None:
    assert {name: error for name, error in errors[case].items() if not error < 1e-10} == {}


@pytest.mark.parametrize("architecture", ["kimi-linear", "gdn-h", GATES])
def test_a_prompt_is_the_layers_own_form(errors: dict[str, dict[str, float]], architecture: str) -> None:
    """Chunk by chunk, rows of unequal lengths, chunks shorter than the convolution."""
    found = errors[f"{architecture} prompt"]
    assert found["logits"] < 1e-10
    assert found["state"] < 1e-10


def test_it_is_close_in_float32(errors: dict[str, dict[str, float]]) -> None:
    assert errors["float32"]["logits"] < 1e-4
    assert errors["float32"]["state"] < 1e-4
