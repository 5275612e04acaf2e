"""The benchmark scripts answer --help without what they compare against; products are recorded as they run."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
import torch

FOLDER = Path(__file__).parent.parent / "benchmarks"


@pytest.mark.parametrize(
    "script",
    [
        "native_vs_transformers",
        "native_vs_llamacpp",
        "kda_cpu",
        "leaderboard_50k",
        "plan_against_run",
        "sample_browser",
        "whole_commands",
        "cpu_threads",
        "training_speed",
    ],
)
def test_help_needs_the_standard_library_only(script: str) -> None:
    done = subprocess.run([sys.executable, "-S", FOLDER / f"{script}.py", "--help"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"benchmarks/{script}.py" in done.stdout


def test_matrix_products_are_counted_by_shape() -> None:
    spec = importlib.util.spec_from_file_location("matrix_products", FOLDER / "matrix_products.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    with torch.no_grad(), module.recorded() as products:
        torch.nn.functional.linear(torch.randn(5, 3), torch.randn(4, 3))
        torch.randn(2, 5, 3) @ torch.randn(2, 3, 7)
        torch.randn(4) + 1
    assert dict(products) == {((5, 3), (3, 4)): 1, ((2, 5, 3), (2, 3, 7)): 1}
    assert module.operations(products) == 2 * 5 * 3 * 4 + 2 * 2 * 5 * 3 * 7
    assert module.seconds(products) > 0
