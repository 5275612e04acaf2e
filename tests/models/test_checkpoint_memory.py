"""Memory that loading a checkpoint takes: the model, and a portion of its file."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from kleval.models.checkpoint import reader, save
from kleval.models.decoder import Decoder

MEASURE = """
import sys, torch
from pathlib import Path
from kleval.models import decoder
from kleval.models.checkpoint import reader

def peak():  # not ru_maxrss: a process inherits that of the one that started it
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) * 1024

dtype = torch.bfloat16 if sys.argv[2] == "cast" else None
reader.load_decoder(Path(sys.argv[1]) / "tiny", dtype=dtype)  # what the libraries need for themselves
before = peak()
model = reader.load_decoder(Path(sys.argv[1]) / "large", dtype=dtype)
print(sum(p.numel() * p.element_size() for p in model.parameters()), peak() - before)
"""
LARGE_BYTES = 320e6


@pytest.fixture(scope="module")
def large(tiny_decoder: Callable[..., Decoder], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two checkpoints: tiny, and large in one file, all of which would be mapped at once if it were read naively."""
    path = tmp_path_factory.mktemp("sizes")
    small = tiny_decoder("kimi-linear", moe=True).float()
    small.config = replace(small.config, embedding_multiplier=1.0)  # transformers has no word for another
    config = replace(small.config, hidden_size=512, num_experts=32, moe_intermediate_size=800)
    with torch.device("meta"):
        model = Decoder(config)
    model.to_empty(device="cpu")
    for parameter in model.parameters():
        parameter.data.fill_(0.5)
    assert sum(p.numel() * 4 for p in model.parameters()) > LARGE_BYTES
    save(small, path / "tiny")
    save(model, path / "large")
    return path


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(("how", "share"), [("as-stored", 1.0), ("cast", 0.5)])
def test_loading_needs_no_more_than_the_model_and_a_portion_of_its_file(how: str, share: float, large: Path) -> None:
    """Measured in a process of its own; the slack is a quarter of what a second copy would be."""
    command = [sys.executable, "-c", MEASURE, str(large), how]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    size, grown = map(int, done.stdout.split())
    assert size > 0.99 * share * LARGE_BYTES
    assert grown < size + reader.PORTION_BYTES + 20e6
