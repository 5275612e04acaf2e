"""The check of device kernels: what is wrong or raises is found, reported and no longer used."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from kleval.ops import available, check, fla_kernels, grouped
from kleval.ops.check import SMALL, check_kernels
from kleval.ops.delta_rule import recurrent_delta_rule

SCRIPT = Path(__file__).with_name("interpreted_kernels.py")
Pair = tuple[torch.Tensor, torch.Tensor]


@pytest.fixture
def pretended(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The router kernel counts as usable here; nothing stays disabled."""

    def why_not(name: str, device: Any) -> str | None:
        return available._disabled.get(name) if name == "router" else "needs a CUDA device"

    monkeypatch.setattr(check, "why_not", why_not)
    yield
    available.enable("router")


def pretend(monkeypatch: pytest.MonkeyPatch, *pairs: Pair) -> None:
    def checks(*_: Any) -> Iterator[tuple[str, float, Pair]]:
        for i, pair in enumerate(pairs):
            yield f"part {i}", 1e-2, pair

    monkeypatch.setitem(check.CHECKS, "router", checks)


def the(name: str) -> check.KernelCheck:
    (found,) = (c for c in check_kernels("cpu") if c.name == name)
    return found


def test_every_kernel_has_a_check() -> None:
    assert set(check.CHECKS) == set(available.KERNELS)


def test_without_a_device_everything_is_reported_as_not_used() -> None:
    checks = check_kernels("cpu")
    assert [c.name for c in checks] == list(available.KERNELS)
    assert all(not c.passed and not c.available and math.isnan(c.error) for c in checks)
    assert all("CUDA" in c.detail for c in checks)
    assert available._disabled == {}


@pytest.mark.usefixtures("pretended")
def test_a_right_kernel_passes_with_its_largest_error(monkeypatch: pytest.MonkeyPatch) -> None:
    ones = torch.ones(10)
    pretend(monkeypatch, (ones, ones), (ones * 1.005, ones), (ones * 1.001, ones))
    found = the("router")
    assert found.passed
    assert found.error == pytest.approx(0.005, rel=1e-3)
    assert "part 1" in found.detail
    assert "router" not in available._disabled


@pytest.mark.usefixtures("pretended")
@pytest.mark.parametrize("bad", [1.5, math.nan, math.inf])
def test_a_wrong_kernel_is_reported_and_disabled(monkeypatch: pytest.MonkeyPatch, bad: float) -> None:
    ones = torch.ones(10)
    out = ones.clone()
    out[3] = bad
    pretend(monkeypatch, (ones, ones), (out, ones))
    found = the("router")
    assert found.available
    assert not found.passed
    assert "part 1" in found.detail
    assert "failed its check" in available._disabled["router"]
    assert not available.usable("router", "cuda")


@pytest.mark.usefixtures("pretended")
def test_a_kernel_that_raises_is_reported_and_disabled_and_may_pass_later(monkeypatch: pytest.MonkeyPatch) -> None:
    def checks(*_: Any) -> Iterator[tuple[str, float, Pair]]:
        raise RuntimeError("out of resources: shared memory\nmore lines")
        yield "", 0.0, (torch.ones(1), torch.ones(1))

    monkeypatch.setitem(check.CHECKS, "router", checks)
    found = the("router")
    assert not found.passed
    assert found.detail == "raised RuntimeError: out of resources: shared memory"
    assert not available.usable("router", "cuda")
    pretend(monkeypatch, (torch.ones(3), torch.ones(3)))
    assert the("router").passed
    assert "router" not in available._disabled


@pytest.mark.usefixtures("pretended")
def test_once_per_shape_with_a_warning_for_what_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, (torch.zeros(3), torch.ones(3)))
    check.check_once.cache_clear()
    with pytest.warns(UserWarning, match="router is not used"):
        first = check.check_once(torch.device("cpu"), SMALL)
    assert check.check_once(torch.device("cpu"), SMALL) is first
    check.check_once.cache_clear()


def right(q: Any, k: Any, v: Any, g: Any, beta: Any, state: Any) -> Pair:
    """What fla's kernels are to compute, in float32."""
    gate = g if g.dim() == 4 else g.unsqueeze(-1)
    o, final = recurrent_delta_rule(q.float(), k.float(), v.float(), gate, beta, state)
    return o.to(v.dtype), final


def transposed(*arguments: Any) -> Pair:
    o, final = right(*arguments)
    return o, final.transpose(2, 3)


def forgetful(q: Any, k: Any, v: Any, g: Any, beta: Any, state: Any) -> Pair:
    """The state that comes in is lost."""
    return right(q, k, v, g, beta, None)


def unwritten(*arguments: Any) -> Pair:
    o, final = right(*arguments)
    o[:, -1] = torch.nan
    return o, final


def unscaled(q: Any, *rest: Any) -> Pair:
    return right(q * q.shape[-1] ** 0.5, *rest)


@pytest.mark.parametrize("name", ["kda", "gdn"])
@pytest.mark.parametrize("kernel", [right, transposed, forgetful, unwritten, unscaled])
def test_the_checks_of_fla_tell_right_from_wrong(monkeypatch: pytest.MonkeyPatch, name: str, kernel: Any) -> None:
    monkeypatch.setattr(fla_kernels, f"chunk_{name}", kernel)
    monkeypatch.setattr(check, "why_not", lambda name, device: None)
    try:
        (found,) = check_kernels("cpu", 5, names=[name])
        assert found.available
        assert found.passed == (kernel is right), found
        assert (name in available._disabled) == (kernel is not right)
    finally:
        available.enable(name)


def test_the_check_of_experts_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch's grouped product on a CPU, without Triton between the products."""
    original = grouped.sorted_experts
    monkeypatch.setattr(grouped, "sorted_experts", lambda *a, **k: original(*a, fused=False))
    monkeypatch.setattr(check, "why_not", lambda name, device: None)
    (found,) = check_kernels("cpu", 6, names=["experts"])
    assert found.passed, found


@pytest.mark.slow
def test_the_checks_themselves_hold_in_the_interpreter() -> None:
    """All that is ours, at small shapes: the references in the checks are right."""
    pytest.importorskip("triton")
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(SCRIPT), "check"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    errors = json.loads(done.stdout)["check bfloat16"]
    assert set(errors) == set(available.TRITON_KERNELS)
    assert {name: error for name, error in errors.items() if not error <= 2e-2} == {}
