"""A profile measures what it planned, stores it point by point, and goes on where it stopped."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kleval.profiler import ProfileSpec, native, profile
from kleval.store import Point, RunStore
from kleval.types import UsageError
from kleval.work import Result, Session
from kleval.work import events as ev


def points_of(spec: ProfileSpec) -> dict[str, Point]:
    assert spec.out is not None
    return {point.id: point for point in RunStore.open(spec.out).points()}


def stop_after(n: int) -> Callable[[ev.Event], None]:
    """A listener that presses Ctrl-C once n points are there."""
    seen: list[str] = []

    def listen(event: ev.Event) -> None:
        if isinstance(event, ev.UnitDone):
            seen.append(event.record.id)
            if len(seen) == n:
                raise KeyboardInterrupt

    return listen


@pytest.fixture
def finished(small: ProfileSpec) -> tuple[ProfileSpec, Result, list[ev.Event]]:
    events: list[ev.Event] = []
    return small, profile(small, events.append), events


def test_every_planned_point_is_stored(finished: tuple[ProfileSpec, Result, list[ev.Event]]) -> None:
    spec, result, events = finished
    assert (result.status, result.exit_code, result.message) == ("complete", 0, "")
    points = points_of(spec)
    assert set(points) == {planned.id for planned in result.units}
    assert {(p.kind, p.protocol) for p in points.values()} == {
        ("machine", "copy"),
        ("machine", "matmul"),
        ("memory", "state"),
        ("decode", "batch-1"),
        ("decode", "largest-batch"),
        ("prefill", "full"),
        ("prefill", "sampled"),
    }
    assert isinstance(events[0], ev.Started)
    assert isinstance(events[-1], ev.Finished)
    assert sum(isinstance(event, ev.UnitDone) for event in events) == len(points)

    for point in points.values():
        assert point.environment["threads"] == 1
        assert point.settings["chunk_tokens"] == 16
        if "state_bytes" in point.closed_form:
            used = point.values.get("state_bytes")
            assert used is None or used == point.closed_form["state_bytes"], point.id
        if point.kind == "decode":
            depth = point.values["depth_first"]
            assert depth is not None
            assert point.ctx <= depth <= point.values["depth_last"] <= point.ctx + 5  # type: ignore[operator]
            assert point.values["steps"] == 2
        if point.protocol == "sampled":
            assert point.estimate
            assert point.values["sampled_over_full"] is not None
            assert len(point.settings["chunk_seconds"]) == point.values["chunks_timed"]
        else:
            assert not point.estimate

    manifest = RunStore.open(spec.out).manifest  # type: ignore[arg-type]
    assert manifest["kind"] == "profile"
    assert manifest["counts"] == {
        "planned": len(points),
        "measured": len(points),
        "failed": 0,
        "missing": 0,
        "left_out": 0,
    }
    assert any("random weights" in text for text in manifest["caveats"])
    assert len(manifest["sampling_checks"]["details"]) == 2 * 2 * 2
    assert sum("sampled prefill is an estimate" in text.lower() for text in manifest["caveats"]) == 1

    before = [(id, point.finished, point.values) for id, point in points.items()]
    again = profile(spec)
    assert again.status == "complete"
    assert [(id, point.finished, point.values) for id, point in points_of(spec).items()] == before


def test_models_take_turns_within_every_group(small: ProfileSpec) -> None:
    order: list[tuple[str, str, int, int]] = []

    def listen(event: ev.Event) -> None:
        if isinstance(event, ev.UnitDone) and event.record.kind in ("decode", "prefill"):
            order.append((event.record.protocol, event.record.model, event.record.ctx, event.record.repeat))

    profile(dataclasses.replace(small, ctxs=(128,), prefill="full"), listen)
    assert order
    for protocol in ("batch-1", "largest-batch", "full"):
        turns = [(model, repeat) for p, model, _, repeat in order if p == protocol]
        assert turns == [(m, r) for r in (0, 1) for m in ("kimi-linear@nano", "mla@nano")]


def test_interrupted_and_run_again_it_continues(small: ProfileSpec) -> None:
    stopped = profile(small, stop_after(9))
    assert (stopped.status, stopped.exit_code) == ("interrupted", 130)
    kept = points_of(small)
    assert len(kept) == 9
    assert RunStore.open(small.out).status == "interrupted"  # type: ignore[arg-type]

    measured: list[str] = []
    result = profile(small, lambda event: measured.append(event.record.id) if isinstance(event, ev.UnitDone) else None)
    assert result.status == "complete"
    assert not set(measured) & set(kept)
    after = points_of(small)
    assert set(after) == {planned.id for planned in stopped.units}
    assert all(after[id] == point for id, point in kept.items())
    assert len(RunStore.open(small.out).manifest["sessions"]) == 2  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"ctxs": (128,)}, "ctx: 128,272 -> 128"),
        ({"repeats": 1}, "repeats: 2 -> 1"),
        ({"chunk_tokens": 8}, "chunk_tokens: 16 -> 8"),
        ({"models": ("mla",)}, "models"),
    ],
)
def test_another_command_is_refused_with_what_differs(small: ProfileSpec, change: dict[str, Any], said: str) -> None:
    profile(small, stop_after(1))
    with pytest.raises(UsageError, match=said):
        profile(dataclasses.replace(small, **change))


def test_another_machine_does_not_continue_a_profile(small: ProfileSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    profile(small, stop_after(1))
    monkeypatch.setattr("kleval.store.machine.cpu_name", lambda: "another")
    with pytest.raises(UsageError, match=r"machine\.cpu"):
        profile(small)


def test_what_failed_is_kept_apart_and_measured_again(small: ProfileSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    real = native.state_footprint

    def broken(*args: Any) -> Any:
        raise RuntimeError("no such\nluck")

    spec = dataclasses.replace(small, ctxs=(128,))
    monkeypatch.setattr(native, "state_footprint", broken)
    result = profile(spec)
    assert (result.status, result.exit_code) == ("incomplete", 3)
    assert result.counts["failed"] == 2
    failed = [point for point in points_of(spec).values() if point.failed]
    assert {point.kind for point in failed} == {"memory"}
    assert failed[0].failure == {"kind": "internal", "message": "RuntimeError: no such luck"}
    monkeypatch.setattr(native, "state_footprint", real)
    assert profile(spec).status == "complete"


def test_a_largest_batch_that_cannot_be_allocated_is_made_smaller(
    small: ProfileSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = native.Bench.filled

    def tight(self: Any, model: str, depth: int, batch: int = 1, more: int = 0) -> Any:
        if batch > 2:
            raise MemoryError("allocate memory")
        return real(self, model, depth, batch, more)

    monkeypatch.setattr(native.Bench, "filled", tight)
    spec = dataclasses.replace(small, ctxs=(128,), models=("mla",), prefill="full", memory_budget=1 << 20)
    assert profile(spec).status == "complete"
    largest = [p for p in points_of(spec).values() if p.protocol == "largest-batch"]
    assert len(largest) == 2
    assert all(1 <= p.batch <= 2 for p in largest)
    assert all(p.values["state_bytes"] == p.closed_form["state_bytes"] for p in largest)


def test_a_dry_run_writes_nothing(small: ProfileSpec, tmp_path: Path) -> None:
    planned: list[ev.Planned] = []
    spec = dataclasses.replace(small, out=None, dry_run=True)
    result = profile(spec, lambda event: planned.append(event) if isinstance(event, ev.Planned) else None)
    assert list(tmp_path.iterdir()) == []
    assert planned[0].units == result.units
    assert all(point.weight > 0 for point in result.units)


def test_a_large_model_is_planned_without_being_built(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("built")

    monkeypatch.setattr("kleval.profiler.opened.build", refuse)
    monkeypatch.setattr("kleval.profiler.opened.free_bytes", lambda device: 1 << 40)
    spec = ProfileSpec(models=("kimi-linear@48b-a3b",), ctxs=(65536,), device="cpu", dry_run=True)
    assert sum(unit.weight for unit in profile(spec).units) > 0


def test_a_model_that_does_not_fit_is_refused_before_anything_is_allocated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("built")

    monkeypatch.setattr("kleval.profiler.opened.build", refuse)
    monkeypatch.setattr("kleval.profiler.opened.free_bytes", lambda device: 8 << 30)
    out = tmp_path / "run"
    with pytest.raises(UsageError, match="of weights") as error:
        profile(ProfileSpec(models=("kimi-linear@48b-a3b",), ctxs=(1024,), device="cpu", out=out))
    assert "\n" not in str(error.value)
    with pytest.raises(UsageError, match="choose a shorter --ctx"):
        profile(ProfileSpec(models=("mla@nano",), ctxs=(1 << 24,), device="cpu", out=out))
    with pytest.raises(UsageError, match="--memory-budget"):
        profile(ProfileSpec(models=("mla@nano",), memory_budget=1 << 40, device="cpu", out=out))
    assert not out.exists()


def test_the_directory_of_a_run_is_not_a_profiles(small: ProfileSpec) -> None:
    assert small.out is not None
    manifest = {"status": "running", "started": "2026-01-01T00:00:00+00:00", "settings": {}}
    RunStore.create(small.out, manifest).close()
    with pytest.raises(UsageError, match="holds a run, not a profile"):
        profile(small)


def test_when_the_time_is_spent_repeats_are_left_out_but_nothing_else(
    small: ProfileSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = dataclasses.replace(small, repeats=None, ctxs=(128,), time_budget=600.0)
    monkeypatch.setattr(Session, "elapsed_seconds", lambda self: 1e9)
    result = profile(spec)
    assert result.status == "complete"
    assert result.counts["left_out"] > 0
    assert result.counts["missing"] == 0
    points = points_of(spec)
    assert {point.repeat for point in points.values()} == {0}
    assert {p.id for p in result.units if p.repeat == 0} == set(points)
    manifest = RunStore.open(spec.out).manifest  # type: ignore[arg-type]
    assert any("left out" in text for text in manifest["caveats"])
    monkeypatch.undo()
    assert profile(spec).counts["left_out"] == 0
    assert set(points_of(spec)) == {planned.id for planned in result.units}


def test_a_chunk_is_no_longer_than_the_longest_prompt(small: ProfileSpec) -> None:
    planned: list[ev.Planned] = []
    spec = dataclasses.replace(small, chunk_tokens=1 << 40, dry_run=True, out=None)
    profile(spec, lambda event: planned.append(event) if isinstance(event, ev.Planned) else None)
    assert planned[0].facts["plan"]["chunk_tokens"] == max(small.ctxs)


def test_tokens_to_decode_that_do_not_fit_are_refused_before_anything_is_allocated(
    small: ProfileSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kleval.profiler.opened.build", None)
    with pytest.raises(UsageError, match="of state in mla@nano"):
        profile(dataclasses.replace(small, decode_tokens=10**11))
    assert small.out is not None
    assert not small.out.exists()


def test_a_directory_that_cannot_be_made_is_told_before_models_are_built(
    small: ProfileSpec, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise OSError(13, "Permission denied")

    monkeypatch.setattr("kleval.profiler.opened.build", None)
    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(UsageError, match="cannot use"):
        profile(small)


def test_a_manifest_without_its_plan_is_one_clear_line(small: ProfileSpec) -> None:
    profile(small, stop_after(1))
    assert small.out is not None
    file = small.out / "run.json"
    values = json.loads(file.read_text())
    del values["plan"]
    file.write_text(json.dumps(values))
    with pytest.raises(UsageError, match="no plan that can be read"):
        profile(small)


def test_another_session_repeats_what_is_timed_and_can_be_continued(small: ProfileSpec) -> None:
    spec = dataclasses.replace(small, ctxs=(128,), prefill="full")
    profile(spec)
    first = points_of(spec)
    timed = [point for point in first.values() if point.kind in ("prefill", "decode")]
    again = dataclasses.replace(spec, append=True)
    assert profile(again, stop_after(3)).status == "interrupted"
    assert profile(spec).status == "complete"
    found = points_of(spec)
    assert {id: found[id] for id in first} == first
    assert len(found) == len(first) + len(timed)
    assert sorted({point.repeat for point in found.values() if point.kind == "decode"}) == [0, 1, 2, 3]
    profile(again)
    assert len(points_of(spec)) == len(first) + 2 * len(timed)
