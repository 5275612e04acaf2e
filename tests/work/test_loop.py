"""The work loop with a job of a few lines: what it files, what it leaves out, and how it ends."""

from __future__ import annotations

import contextlib
import dataclasses

import pytest

from kleval.profiler.points import Outcome, PlannedPoint, point_id, point_verdict
from kleval.store import RunStore
from kleval.types import UsageError
from kleval.work import Job, Session, work
from kleval.work import events as ev


@dataclasses.dataclass(frozen=True)
class Spec:
    out: object
    n: int = 6
    seed: int = 1
    dry_run: bool = False
    command: str = "count"
    name: str = ""
    tags: dict = dataclasses.field(default_factory=dict)
    verified: dict = dataclasses.field(default_factory=dict)

    def check(self):
        if self.n < 1:
            raise UsageError("count at least 1")

    def record(self):
        return {"n": self.n, "command": self.command}


class Counting(Job):
    """Unit i measures i. broken: those that fail; opened: how often what is measured was reached."""

    def __init__(self, spec, broken=(), **given):
        super().__init__(spec)
        self.broken, self.opened, self.measured = broken, 0, []
        for name, value in given.items():
            setattr(self, name, value)

    def settings(self):
        return {"seed": self.spec.seed}

    @contextlib.contextmanager
    def open(self, old):
        self.opened, self.models, self.environment = self.opened + 1, {"one": {}}, {"cores": 1}
        yield

    def units(self, say):
        say("looking")
        made = [("decode", 1 + i // 2, i % 2) for i in range(self.spec.n)]
        return [PlannedPoint(point_id(k, "x", "one", c, 1, r), k, "one", c, 1, "x", r, 2.0) for k, c, r in made]

    def facts(self):
        return {"models": {"one": {"name": "one"}}, "seeds": {"seed": 1}}

    def measure(self, group, session):
        for unit in group:
            self.measured.append(unit.id)
            failure = {"kind": "internal", "message": "no luck"} if unit.id in self.broken else None
            yield unit, unit.point(Outcome({} if failure else {"seconds": unit.ctx}, failure=failure), {}, {})

    def verdict(self, session):
        return point_verdict(session, len(session.left_out), caveats=[f"counted {len(session.done)}"])


def values(out):
    return {point.id: (point.values, point.failure) for point in RunStore.open(out).points()}


def after(n, error):
    seen = []

    def listen(event):
        if isinstance(event, ev.UnitDone):
            seen.append(event)
            if len(seen) == n:
                raise error

    return listen


@pytest.mark.parametrize("n", range(1, 7))
def test_an_interrupted_command_continued_equals_an_uninterrupted_one(tmp_path, n):
    whole, cut = Spec(tmp_path / "whole"), Spec(tmp_path / "cut")
    work(Counting(whole))
    result = work(Counting(cut), after(n, KeyboardInterrupt()))
    assert (result.status, result.exit_code) == ("interrupted", 130)
    assert RunStore.open(cut.out).manifest["status"] == "interrupted"
    assert len(values(cut.out)) == result.counts["measured"] == n
    again = Counting(cut)
    assert work(again).status == "complete"
    assert len(again.measured) == 6 - n
    assert values(cut.out) == values(whole.out)
    assert [s["status"] for s in RunStore.open(cut.out).manifest["sessions"]] == ["interrupted", "complete"]


def test_what_is_done_is_left_out_and_a_failure_is_measured_again(tmp_path):
    spec = Spec(tmp_path / "run")
    broken = "decode/x/one/2/b1/r1"
    first = work(Counting(spec, broken={broken}))
    assert (first.status, first.exit_code, first.counts["failed"]) == ("incomplete", 3, 1)
    assert "no luck" in first.message
    again = Counting(spec)
    assert work(again).exit_code == 0
    assert again.measured == [broken]


def test_events_begin_with_started_and_end_with_finished(tmp_path):
    events = []
    result = work(Counting(Spec(tmp_path / "run")), events.append)
    assert [type(event) for event in events[:3]] == [ev.Started, ev.Phase, ev.Planned]
    assert events[-1] == ev.Finished(result)
    progress = [event for event in events if isinstance(event, ev.Progress)]
    assert [at.work_done for at in progress] == [2.0 * i for i in range(1, 7)]
    assert (progress[-1].n_done, progress[-1].work_done) == (progress[-1].n_total, progress[-1].work_total)


def test_a_record_is_on_the_disk_when_its_event_comes(tmp_path):
    def look(event):
        if isinstance(event, ev.UnitDone):
            assert event.record in list(RunStore.open(tmp_path / "run").points())

    assert work(Counting(Spec(tmp_path / "run")), look).status == "complete"


def test_a_changed_command_is_refused_before_anything_is_reached(tmp_path):
    spec = Spec(tmp_path / "run")
    work(Counting(spec))
    before = {path: path.read_bytes() for path in spec.out.rglob("*") if path.is_file()}
    other, events = Counting(dataclasses.replace(spec, seed=2)), []
    with pytest.raises(UsageError, match="seed: 1 -> 2"):
        work(other, events.append)
    assert (other.opened, events) == (0, [])
    assert {path: path.read_bytes() for path in spec.out.rglob("*") if path.is_file()} == before


def test_a_full_disk_ends_it_with_one_line_and_it_continues_later(tmp_path, monkeypatch):
    events, real, free = [], RunStore.append_point, [3]

    def full(self, point):
        if not free[0]:
            raise UsageError("disk full")
        free[0] -= 1
        real(self, point)

    monkeypatch.setattr(RunStore, "append_point", full)
    with pytest.raises(UsageError, match="disk full"):
        work(Counting(Spec(tmp_path / "run")), events.append)
    assert (events[-1].result.status, events[-1].result.exit_code) == ("interrupted", 2)
    assert len(values(tmp_path / "run")) == 3
    free[0] = 100
    assert work(Counting(Spec(tmp_path / "run"))).status == "complete"


def test_an_internal_error_is_raised_with_the_state_saved(tmp_path):
    with pytest.raises(ZeroDivisionError):
        work(Counting(Spec(tmp_path / "run")), after(2, ZeroDivisionError()))
    assert RunStore.open(tmp_path / "run").manifest["counts"]["measured"] == 2
    assert work(Counting(Spec(tmp_path / "run"))).status == "complete"


def test_once_the_time_is_over_further_repeats_are_left_out_and_nothing_else(tmp_path, monkeypatch):
    monkeypatch.setattr(Session, "elapsed_seconds", lambda self: 1e9)
    result = work(Counting(Spec(tmp_path / "run"), limit_seconds=1.0))
    assert (result.status, result.counts["measured"], result.counts["left_out"]) == ("complete", 3, 3)


def test_too_many_errors_end_it_early(tmp_path):
    broken = {point_id("decode", "x", "one", 1 + i // 2, 1, i % 2) for i in range(6)}
    job = Counting(Spec(tmp_path / "run"), broken=broken, max_errors=2)
    result = work(job)
    assert (result.status, result.exit_code, len(job.measured)) == ("incomplete", 3, 3)
    assert "ended early" in result.message


def test_what_the_verdict_says_is_stored(tmp_path):
    work(Counting(Spec(tmp_path / "run"), environment={}))
    manifest = RunStore.open(tmp_path / "run").manifest
    assert manifest["caveats"] == ["counted 6"]
    assert manifest["counts"] == {"planned": 6, "measured": 6, "failed": 0, "missing": 0, "left_out": 0}
    assert (manifest["kind"], manifest["hardware"]) == ("profile", {"cores": 1})


def test_a_dry_run_plans_and_writes_nothing(tmp_path):
    events = []
    result = work(Counting(Spec(tmp_path / "run", dry_run=True)), events.append)
    assert (result.out, result.exit_code, len(result.units)) == (None, 0, 6)
    assert isinstance(events[-2], ev.Planned)
    assert list(tmp_path.iterdir()) == []


def test_a_run_keeps_its_name_and_its_tags_when_it_goes_on_without_them(tmp_path):
    work(Counting(Spec(tmp_path, n=2, name="nightly", tags={"engine": "0.33", "cuda": "13"})))
    work(Counting(Spec(tmp_path, n=2, tags={"engine": "0.34"})))
    store = RunStore.open(tmp_path)
    assert store.title == "nightly"
    assert store.manifest["tags"] == {"engine": "0.34", "cuda": "13"}
    assert store.manifest["name"] == tmp_path.name
