"""Which dtype `auto` comes to on a CPU."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from kleval.backends import devices


@pytest.mark.parametrize(
    ("line", "has"),
    [
        ("flags\t\t: fpu avx2 avx512f avx512_bf16", True),
        ("flags\t\t: fpu amx_bf16", True),
        ("flags\t\t: fpu avx2 avx512f", False),
        ("Features\t: fp asimd bf16", True),
        ("Features\t: fp asimd", False),
    ],
)
def test_units_are_read_from_the_processors_flags(line: str, has: bool, tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\n{line}\n", "utf-8")
    assert devices.has_bfloat16_units(tmp_path / "cpuinfo") is has


def test_a_system_without_the_file_is_asked_through_torch(tmp_path: Path) -> None:
    assert isinstance(devices.has_bfloat16_units(tmp_path / "none"), bool)


def test_auto_is_float32_where_a_cpu_lacks_units(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "has_bfloat16_units", lambda: False)
    assert devices.settle_dtype("auto", torch.device("cpu")) == "float32"
    assert devices.settle_dtype("auto", torch.device("cuda")) == "auto"
    assert devices.settle_dtype("bfloat16", torch.device("cpu")) == "bfloat16"
    monkeypatch.setattr(devices, "has_bfloat16_units", lambda: True)
    assert devices.settle_dtype("auto", torch.device("cpu")) == "auto"
