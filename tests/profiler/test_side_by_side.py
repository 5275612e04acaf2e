"""A profile on several devices, with workers in this process and a device that makes up its times."""

from __future__ import annotations

import dataclasses
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch

from kleval.profiler import ProfileSpec, profile, side_by_side
from kleval.profiler.judge import sharing
from kleval.profiler.opened import Device
from kleval.profiler.points import Outcome, PlannedPoint
from kleval.profiler.rates import Rates
from kleval.store import Point, RunStore
from kleval.types import UsageError
from kleval.work.pool import Place
from kleval.work.worker import Dead

Key = tuple[str, str, int]


class Quick(Device):
    """No model is built; a point says what had been measured before it."""

    def try_out(self, say: Any) -> None:
        self._bench.rates |= dict.fromkeys(self._bench.configs, Rates(1e-3, 1e-6, 1e-4, 1e-5, 1e-9, 1e-9))

    def points(self, group: Any, planned: Any, told: Any) -> Iterator[tuple[PlannedPoint, Point]]:
        for one in group:
            known = {"done": sorted(told.done)}
            yield one, one.point(Outcome({"seconds": 1.0}, settings=known), {}, self.facts.environment)


class Link:
    def __init__(self, engine: Any, deadly: set[Key]) -> None:
        self.engine, self.deadly, self.sent = engine, deadly, []  # type: ignore[var-annotated]
        self.replies: deque[Any] = deque([("open", engine.facts)])

    def send(self, payloads: Sequence[Any]) -> None:
        self.sent += [payload.points for payload in payloads]
        kinds = {(p.points[0].kind, p.points[0].protocol, p.points[0].ctx) for p in payloads}
        self.replies.append(Dead("died") if kinds & self.deadly else ("done", self.engine.work(payloads)))

    def receive(self) -> Any:
        reply = self.replies.popleft()
        if isinstance(reply, Dead):
            raise reply
        return reply

    def close(self, idle: bool) -> None:
        self.deadly = set()


class Launcher:
    kind = "processes"

    def __init__(self, *deadly: Key) -> None:
        self.deadly = set(deadly)
        self.links: list[Link] = []

    def places(self) -> list[Place]:
        return [Place(at, f"cpu ({at + 1})", "cpu") for at in range(2)]

    def start(self, place: Place, make: Any) -> Link:
        self.links.append(Link(make(place.device), self.deadly))
        return self.links[-1]

    def wait(self, links: Sequence[Link], seconds: float) -> list[Link]:
        return [link for link in links if link.replies][-1:]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("side_by_side", "native_job"):
        monkeypatch.setattr(f"kleval.profiler.{module}.Device", Quick)


def stored(spec: ProfileSpec) -> list[Point]:
    assert spec.out is not None
    return list(RunStore.open(spec.out).points())


def test_a_group_is_measured_whole_on_one_device_after_what_it_rests_on(small: ProfileSpec) -> None:
    launcher = Launcher()
    result = profile(small, launcher=launcher)
    assert result.status == "complete"
    points = stored(small)
    assert Counter(point.id for point in points) == Counter(unit.id for unit in result.units)
    groups = [group for link in launcher.links for group in link.sent]
    assert all(link.sent for link in launcher.links)
    assert len(groups) == len({unit.group for unit in result.units})
    assert sum(map(len, groups)) == len(points)
    for point in points:
        done = set(point.settings["done"])
        if point.kind != "machine":
            assert {"machine/copy", "machine/matmul"} <= done
        if point.protocol == "sampled":
            assert f"prefill/full/{point.model}/{point.ctx}/b1/r0" in done
    assert RunStore.open(small.out).manifest["sessions"][-1]["workers"]["executor"] == "processes"  # type: ignore[arg-type]


def test_a_group_that_kills_three_workers_fails_alone_and_one_process_measures_it_later(small: ProfileSpec) -> None:
    assert profile(small, launcher=Launcher(("decode", "batch-1", 128))).exit_code == 3
    failed = [point for point in stored(small) if point.failed]
    assert {(point.kind, point.protocol, point.ctx) for point in failed} == {("decode", "batch-1", 128)}
    assert {str((point.failure or {})["message"]) for point in failed} == {
        "3 workers ended while they measured its group; the last one died"
    }
    before = {point.id: point.finished for point in stored(small) if not point.failed}
    result = profile(small)
    assert result.status == "complete"
    after = {point.id: point.finished for point in stored(small) if not point.failed}
    assert after.items() >= before.items()
    assert len(after) == len(result.units)


def test_two_processes_never_measure_on_one_gpu(small: ProfileSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(side_by_side, "resolve_device", torch.device)
    with pytest.raises(UsageError, match="--devices names cuda:0 twice"):
        profile(dataclasses.replace(small, devices=("cuda:0", "cuda:1", "cuda:0")), launcher=Launcher())
    with pytest.raises(UsageError, match="give 1 or more"):
        profile(dataclasses.replace(small, executor="ray", gpus_per_model=0.5), launcher=Launcher())


def test_points_with_other_threads_are_told_of(small: ProfileSpec) -> None:
    profile(small)
    one, two, *_ = stored(small)
    shared = [
        dataclasses.replace(p, environment={**p.environment, "threads": n}, settings={"side_by_side": n})
        for n, p in enumerate((one, two), 1)
    ]
    told = sharing(shared)
    assert [text.split(":")[0] for text in told] == ["Side by side", "Threads"]
    assert sharing([one, two]) == []
