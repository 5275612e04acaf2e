"""The GPU benchmark at nano size on a CPU: it runs to the end, and what it writes is complete and consistent."""

from __future__ import annotations

import importlib.util
import json
import math
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

from kleval.ops.check import KernelCheck

pytestmark = pytest.mark.slow
SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu_48b.py"


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def script() -> ModuleType:
    import sys

    spec = importlib.util.spec_from_file_location("gpu_48b", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["gpu_48b"] = module
    sys.path.insert(0, str(SCRIPT.parent))  # the scripts import one another, as they do when run
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(SCRIPT.parent))
    return module


@pytest.fixture(autouse=True)
def no_gpu_and_a_small_machine(script: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(script, "copy_bandwidth", lambda device: 1e10)
    monkeypatch.setattr(script, "matmul_rate", lambda device, dtype: 1e10)


def run(script: ModuleType, out: Path, *options: str) -> dict[str, Any]:
    assert script.main(["--size", "nano", "--out", str(out), *options]) == 0
    return dict(json.loads(out.read_text(encoding="utf-8")))


@pytest.fixture(scope="module")
def rows(script: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, "is_available", lambda: False)
        patch.setattr(script, "copy_bandwidth", lambda device: 1e10)
        patch.setattr(script, "matmul_rate", lambda device, dtype: 1e10)
        patch.setattr(script, "STEPS", 3)
        return list(run(script, tmp_path_factory.mktemp("gpu") / "rows.json")["rows"])


def of(rows: list[dict[str, Any]], kind: str) -> list[dict[str, Any]]:
    return [row for row in rows if row["kind"] == kind]


def test_every_point_is_there(script: ModuleType, rows: list[dict[str, Any]]) -> None:
    scale = script.SCALES["nano"]
    models = [f"{a}@nano" for a in script.ARCHITECTURES]
    assert [(r["model"], r["ctx"]) for r in of(rows, "prefill")] == [(m, t) for m in models for t in scale.prompts]
    expected = [(m, d, p) for m in models for d in scale.depths for p in ("batch-1", "largest-batch")]
    assert [(r["model"], r["ctx"], r["protocol"]) for r in of(rows, "decode")] == expected
    assert [r["ctx"] for r in of(rows, "kernel")] == list(scale.kernel_tokens)
    assert not any("skipped" in r or "failure" in r for r in rows)


def test_each_time_stands_beside_its_bound(rows: list[dict[str, Any]]) -> None:
    for row in of(rows, "decode"):
        assert row["bound_ms"] == pytest.approx(max(row["bytes_per_step"], row["flops_per_step"]) / 1e10 * 1e3)
        assert row["ms_per_token"] == pytest.approx(row["step_ms_median"] / row["batch"])
    for row in of(rows, "prefill"):
        assert row["mfu"] == pytest.approx(row["flops"] / 1e10 / row["seconds"])


def test_the_largest_batch_fits_its_budget_and_one_more_would_not(
    script: ModuleType, rows: list[dict[str, Any]]
) -> None:
    from kleval.models.sizes import preset

    budget = script.SCALES["nano"].state_budget
    for row in of(rows, "decode"):
        if row["protocol"] == "largest-batch":
            per_row = preset(row["model"].split("@")[0], "nano").state_bytes(row["ctx"], 1, "float32").total
            assert row["batch"] > 1
            assert row["batch"] * per_row <= row["state_bytes"] <= row["allocated_bytes"] <= budget


def test_ratios_are_those_of_their_rows(rows: list[dict[str, Any]]) -> None:
    decode = {(r["model"], r["ctx"], r["protocol"]): r for r in of(rows, "decode")}
    ratios = of(rows, "ratio")
    assert len(ratios) == len(decode) // 2
    for ratio in ratios:
        kimi, mla = (decode[f"{a}@nano", ratio["ctx"], ratio["protocol"]] for a in ("kimi-linear", "mla"))
        assert ratio["measured"] == pytest.approx(mla["ms_per_token"] / kimi["ms_per_token"])
        assert ratio["batches"] == f"{mla['batch']}/{kimi['batch']}"


def test_no_time_left_is_said_point_by_point(
    script: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = run(script, tmp_path / "rows.json", "--time-budget", "0")
    kinds = {"kernel", "decode"}
    assert all("time budget" in r["skipped"] for r in found["rows"] if r["kind"] in kinds)
    assert {r["kind"] for r in found["rows"] if "skipped" in r} == kinds
    assert "time budget" in capsys.readouterr().out


def test_what_needs_a_failed_kernel_is_not_timed(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """KDA's prefill kernel fails: no kernel times and no prefill of what has KDA, decode and MLA go on."""

    def checks(device: Any, seed: int, names: list[str]) -> list[KernelCheck]:
        return [KernelCheck(n, n != "kda", math.nan if n == "kda" else 1e-3, "wrong by half") for n in names]

    monkeypatch.setattr(script, "check_kernels", checks)
    monkeypatch.setattr(script, "STEPS", 1)
    found = run(script, tmp_path / "rows.json")
    skipped = {(r["kind"], r["model"]) for r in found["rows"] if "failed its check" in r.get("skipped", "")}
    assert skipped == {("kernel", "kda"), ("prefill", "kimi-linear@nano")}
    assert any(r["model"] == "mla@nano" and "seconds" in r for r in of(found["rows"], "prefill"))
    assert all("step_ms_median" in r for r in of(found["rows"], "decode"))
    assert [c["name"] for c in found["checks"] if not c["passed"]] == ["kda"]
    assert "FAILED" in capsys.readouterr().out


def test_a_batch_that_does_not_fit_after_all_is_made_smaller(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = script.filled

    def filled(s: Any, config: Any, depth: int, batch: int) -> Any:
        if batch > 5:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 30 GiB\nmore")
        return original(s, config, depth, batch)

    monkeypatch.setattr(script, "filled", filled)
    monkeypatch.setattr(script, "STEPS", 1)
    largest = [r for r in of(run(script, tmp_path / "rows.json")["rows"], "decode") if r["protocol"] == "largest-batch"]
    assert max(row["batch_computed"] for row in largest) > 5
    assert all(row["batch"] == min(5, row["batch_computed"]) for row in largest)


def test_on_a_gpu_an_absent_kernel_is_not_replaced(script: ModuleType, tmp_path: Path) -> None:
    session = script.Session(torch.device("cuda"), torch.bfloat16, script.SCALES["nano"], math.inf, None)
    session.checks = [KernelCheck("kda", False, math.nan, "not used: fla-core is not installed", available=False)]
    assert session.blocked("prefill", 0.0, model="kimi-linear@nano")
    assert "kda is not there" in session.rows[-1]["skipped"]
    assert not session.blocked("prefill", 0.0, model="mla@nano")


def test_a_batch_whose_step_cannot_be_recorded_for_memory_is_made_smaller(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class NoRoom(script.Stepper):  # type: ignore[misc, name-defined]
        def __init__(self, decoder: Any, cache: Any) -> None:
            super().__init__(decoder, cache)
            if len(cache.lengths_host) > 2:
                self.why = "capturing failed: CUDA out of memory. Tried to allocate 1 GiB"

    monkeypatch.setattr(script, "Stepper", NoRoom)
    monkeypatch.setattr(script, "STEPS", 1)
    rows = of(run(script, tmp_path / "rows.json")["rows"], "decode")
    assert {r["batch"] for r in rows if r["protocol"] == "largest-batch"} == {2}


def test_a_point_that_raises_is_a_row_and_the_others_are_measured(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    original, out = script.decode_times, tmp_path / "rows.json"

    def times(s: Any, decoder: Any, depth: int, batch: int) -> Any:
        if depth == 64:
            raise ValueError("no kernel for this shape")
        return original(s, decoder, depth, batch)

    monkeypatch.setattr(script, "decode_times", times)
    monkeypatch.setattr(script, "STEPS", 1)
    assert script.main(["--size", "nano", "--out", str(out)]) == 1
    rows = of(json.loads(out.read_text(encoding="utf-8"))["rows"], "decode")
    assert all((r["ctx"] == 64) == ("failure" in r) for r in rows)
    assert {r["failure"] for r in rows if r["ctx"] == 64} == {"ValueError: no kernel for this shape"}
    assert "4 points failed" in capsys.readouterr().out


def test_the_published_size_needs_a_gpu(script: ModuleType, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert script.main(["--size", "48b-a3b", "--out", str(tmp_path / "x.json")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "x.json").exists()
