"""Kernels one at a time: right before timed, in turns, resumable, and never a number for what was not measured."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kleval.cli.main import call
from kleval.profiler import operators
from kleval.profiler.kernels import plan_kernels, profile_kernels
from kleval.profiler.workload import KernelSpec
from kleval.store import Point, RunStore
from kleval.tables.cost_rows import kernel_rows
from kleval.tables.costs import make_profile
from kleval.tables.ratios import kernel_ratios
from kleval.types import UsageError
from kleval.work import events as ev

CPU = torch.device("cpu")


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> KernelSpec:
    """Two lengths, one and two heads of 8, two turns of few calls."""
    monkeypatch.setattr("kleval.profiler.kernel_turns.MAX_CALLS", 3)
    return KernelSpec(ctxs=(48, 96), heads=(1, 2), head_dim=8, repeats=2, device="cpu", out=tmp_path / "run")


def points_of(spec: KernelSpec) -> dict[str, Point]:
    assert spec.out is not None
    return {point.id: point for point in RunStore.open(spec.out).points()}


def test_a_time_budget_in_which_nothing_was_timed_is_said_and_is_incomplete(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["profile", "kernels", "--ctx", "48", "--heads", "1", "--head-dim", "8", "--device", "cpu"]
    assert call([*words, "--time-budget", "0.001s", "--out", str(tmp_path / "run")]) == 3
    said = capsys.readouterr().err
    assert "incomplete: no operator was timed (about 0 s, 0 s left of the time budget): give " in said
    assert "not measured  kda, 1 head, at 1" in said
    assert RunStore.open(tmp_path / "run").status == "incomplete"


def test_every_planned_kernel_becomes_points(tiny: KernelSpec) -> None:
    result = profile_kernels(tiny)
    assert (result.status, result.exit_code, result.skips) == ("complete", 0, ())
    points = points_of(tiny)
    assert set(points) == {planned.id for planned in plan_kernels(tiny, "cpu")}
    assert {"machine/copy", "machine/matmul", "kernel/chunk/dplr/h2d8/96/r1", "kernel/recurrent/kda/h1d8/1/r0"} <= set(
        points
    )
    assert {(p.protocol, p.model) for p in points.values() if p.kind == "kernel"} == {
        *(("chunk", name) for name in ("kda", "gdn", "dplr", "softmax")),
        *(("recurrent", name) for name in ("kda", "gdn")),
    }
    for point in points.values():
        if point.kind == "kernel":
            assert point.settings["heads"] in (1, 2)
            assert (point.settings["head_dim"], point.settings["direction"]) == (8, "forward")
            assert 0 < (point.values["seconds"] or 0) <= (point.values["seconds_p90"] or 0)
            speed = (point.closed_form["flops"] or 0) / (point.values["seconds"] or 1)
            assert point.values["flops_per_second"] == pytest.approx(speed)
    assert RunStore.open(tiny.out).manifest["kind"] == "profile"  # type: ignore[arg-type]


def test_operators_take_turns_within_a_shape(tiny: KernelSpec) -> None:
    order: list[tuple[str, int]] = []

    def listen(event: ev.Event) -> None:
        if isinstance(event, ev.UnitDone) and isinstance(event.record, Point) and event.record.protocol == "chunk":
            order.append((event.record.model, event.record.repeat))

    profile_kernels(dataclasses.replace(tiny, ctxs=(48,), heads=(1,)), listen)
    assert order == [(name, repeat) for repeat in (0, 1) for name in ("kda", "gdn", "dplr", "softmax")]


def test_a_wrong_kernel_is_reported_and_not_timed(tiny: KernelSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    real: Callable[..., Any] = operators._torch_gdn

    def wrong(*args: Any, **kwargs: Any) -> Any:
        o, state = real(*args, **kwargs)
        return 1.1 * o, state

    monkeypatch.setattr(operators, "_torch_gdn", wrong)
    result = profile_kernels(tiny)
    assert (result.status, result.exit_code) == ("incomplete", 3)
    failed = [point for point in points_of(tiny).values() if point.failed]
    assert {(p.model, p.protocol) for p in failed} == {("gdn", "chunk")}
    assert len(failed) == 2 * 2 * 2
    assert all((p.failure or {})["kind"] == "wrong_result" for p in failed)
    assert "off by" in (failed[0].failure or {})["message"]
    monkeypatch.setattr(operators, "_torch_gdn", real)
    assert profile_kernels(tiny).status == "complete"


def test_a_kernel_that_raises_in_its_check_is_reported(tiny: KernelSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("no such\nluck")

    monkeypatch.setattr(operators.dplr, "chunk_dplr", broken)
    profile_kernels(tiny)
    failed = {p.model: (p.failure or {})["message"] for p in points_of(tiny).values() if p.failed}
    assert failed == {"dplr": "the check on 150 tokens raised RuntimeError: no such luck"}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(("name", "protocol"), [(n, p) for p, names in operators.OPERATORS.items() for n in names])
def test_all_operators_pass_their_check(name: str, protocol: Any, dtype: torch.dtype) -> None:
    assert operators.check(name, protocol, 2, 16, CPU, dtype, 3) is None


def test_what_the_time_budget_does_not_allow_is_left_out_and_said(tiny: KernelSpec) -> None:
    result = profile_kernels(dataclasses.replace(tiny, ctxs=(48, 1 << 20), heads=(1,), time_budget=5.0))
    left = {(one["operator"], one["ctx"]) for one in result.skips}
    assert left == {(name, 1 << 20) for name in ("kda", "gdn", "dplr", "softmax")}
    assert all("of the time budget" in one["reason"] for one in result.skips)
    assert not [p for p in points_of(tiny).values() if p.ctx == 1 << 20]
    assert result.status == "complete"


def test_interrupted_and_run_again_it_continues(tiny: KernelSpec) -> None:
    seen: list[str] = []

    def stop(event: ev.Event) -> None:
        if isinstance(event, ev.UnitDone):
            seen.append(event.record.id)
            if len(seen) == 7:
                raise KeyboardInterrupt

    assert profile_kernels(tiny, stop).exit_code == 130
    kept = points_of(tiny)
    assert len(kept) == 7
    measured: list[str] = []
    result = profile_kernels(
        tiny, lambda event: measured.append(event.record.id) if isinstance(event, ev.UnitDone) else None
    )
    assert result.status == "complete"
    assert not set(measured) & set(kept)
    after = points_of(tiny)
    assert all(after[id] == point for id, point in kept.items())


def test_another_command_is_refused(tiny: KernelSpec) -> None:
    profile_kernels(dataclasses.replace(tiny, ctxs=(48,), heads=(1,)))
    with pytest.raises(UsageError, match="head_dim"):
        profile_kernels(dataclasses.replace(tiny, ctxs=(48,), heads=(1,), head_dim=4))


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 1 << 20), st.sampled_from([1, 16, 32]))
def test_operations_are_the_papers(tokens: int, heads: int) -> None:
    """Eq. 13 and 14 at C = 64, d = 128: 126,976 per token and head; softmax 256 T^2."""
    assert operators.flops("kda", "chunk", tokens, heads, 128) == heads * tokens * 126_976
    assert operators.flops("gdn", "chunk", tokens, heads, 128) == heads * tokens * 126_976
    assert operators.flops("softmax", "chunk", tokens, heads, 128) == heads * 256 * tokens * tokens
    more = operators.flops("dplr", "chunk", tokens, heads, 128) - operators.flops("kda", "chunk", tokens, heads, 128)
    assert more == heads * tokens * (2 * 128 * 128 + 4 * 64 * 128)  # two products with the state, four within a chunk


def test_bytes_are_those_of_the_tensors() -> None:
    drawn = operators.draw(20, 3, 8, CPU, torch.bfloat16, 0)
    state = 2 * 3 * 8 * 8 * 4

    def held(*tensors: torch.Tensor) -> int:
        return sum(x.numel() * x.element_size() for x in tensors)

    out = drawn.v
    assert operators.nbytes("kda", "chunk", 20, 3, 8, "bfloat16") == state + held(
        drawn.q, drawn.k, drawn.v, drawn.g, drawn.beta, out
    )
    assert operators.nbytes("gdn", "chunk", 20, 3, 8, "bfloat16") == state + held(*drawn.gdn, out)
    assert operators.nbytes("dplr", "chunk", 20, 3, 8, "bfloat16") == state + held(*drawn.dplr, out)
    assert operators.nbytes("softmax", "chunk", 20, 3, 8, "bfloat16") == held(drawn.q, drawn.k, drawn.v, out)


def test_dplr_is_given_what_kda_is() -> None:
    drawn = operators.draw(70, 2, 8, CPU, torch.float32, 5)
    torch.testing.assert_close(
        operators.prompt_call("dplr", drawn)(), operators.prompt_call("kda", drawn)(), rtol=1e-4, atol=1e-5
    )


def test_long_prompts_carry_the_state_between_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = operators.draw(100, 2, 8, CPU, torch.float32, 5)
    whole = {name: operators.prompt_call(name, drawn)()[:, -4:] for name in ("kda", "gdn", "dplr")}
    monkeypatch.setattr(operators, "CALL_TOKENS", 32)
    for name, expected in whole.items():
        torch.testing.assert_close(operators.prompt_call(name, drawn)(), expected, rtol=1e-4, atol=1e-5)


def point(name: str, repeat: int, seconds: float, ctx: int = 2048, heads: int = 16) -> Point:
    return Point(
        id=f"kernel/chunk/{name}/h{heads}d128/{ctx}/r{repeat}",
        kind="kernel",
        model=name,
        ctx=ctx,
        batch=1,
        protocol="chunk",
        repeat=repeat,
        values={"seconds": seconds, "seconds_p90": seconds},
        closed_form={"flops": {"kda": 100, "dplr": 150}[name]},
        settings={"heads": heads, "head_dim": 128},
    )


def test_ratios_are_paired_by_repeat() -> None:
    points = [point("kda", r, s) for r, s in enumerate((1.0, 2.0, 4.0))]
    points += [point("dplr", r, s) for r, s in enumerate((2.0, 4.0, 8.0))]
    (ratio,) = kernel_ratios(points)
    assert (ratio.value, ratio.low, ratio.high, ratio.n) == pytest.approx((2.0, 2.0, 2.0, 3))
    assert ratio.ideal == 1.5
    assert kernel_ratios([point("kda", 0, 1.0), point("dplr", 1, 2.0)]) == []
    assert kernel_ratios([point("kda", 0, 1.0), point("dplr", 0, 2.0, heads=32)]) == []


def test_rows_give_medians_and_spread() -> None:
    rows = kernel_rows(make_profile([point("kda", r, s) for r, s in enumerate((1.0, 3.0, 2.0))], {}))
    assert [(row["seconds"], row["spread"], row["repeats"]) for row in rows] == [(2.0, 1.0, 3)]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"ctxs": ()}, "at least 2 tokens"),
        ({"ctxs": (1,)}, "at least 2 tokens"),
        ({"heads": (0,)}, "--heads"),
        ({"head_dim": 512}, "--head-dim"),
        ({"repeats": 0}, "--repeats"),
        ({"time_budget": 0.0}, "--time-budget"),
        ({"dtype": "int8"}, "unknown dtype"),
        ({"out": None}, "--out"),
    ],
)
def test_bad_input_is_one_line(tiny: KernelSpec, change: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said) as error:
        profile_kernels(dataclasses.replace(tiny, **change))
    assert "\n" not in str(error.value)
    assert not tiny.out.exists()  # type: ignore[union-attr]


def test_the_command_prints_its_rows_and_writes_its_files(tiny: KernelSpec, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["profile", "kernels", "--ctx", "48", "--heads", "1", "--head-dim", "8", "--repeats", "2", "--device", "cpu"]
    assert call([*argv, "--out", str(tiny.out), "--format", "jsonl", "-q"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {row["operator"] for row in rows} == {"kda", "gdn", "dplr", "softmax"}
    assert all(row["seconds"] > 0 for row in rows)
    assert tiny.out is not None
    assert (tiny.out / "report.html").is_file()
    assert (tiny.out / "profile.csv").is_file()
    assert call([*argv, "--out", str(tiny.out)]) == 0
    out = capsys.readouterr().out
    assert "DPLR / KDA" in out
    assert "about 2x, hardware not stated" in out


def test_a_dry_run_plans_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert call(["profile", "kernels", "--ctx", "2k,4k", "--dry-run", "--format", "json", "-q"]) == 0
    planned = json.loads(capsys.readouterr().out)
    assert len(planned) == 2 * 2 + 2 * 2 * 4
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--heads", "x"], "is not a number of heads"),
        (["--heads", ","], "no heads given"),
        (["--ctx", "0"], "is not a length"),
        (["--device", "tpu"], "device"),
        (["--time-budget", "soon"], "is not a time"),
    ],
)
def test_a_bad_command_is_one_line_and_exit_code_2(
    argv: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert call(["profile", "kernels", *argv]) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert said in error[-1]
    assert list(tmp_path.iterdir()) == []
