"""The work loop: plan, work, file, go on. One command, safe to kill and to run again.

`work(job, on_event)` opens the run directory, refuses a changed command, leaves out what is done, files each record as it comes
and ends: at the end, on Ctrl-C, when the disk is full, when the time is over, when too much failed. Whatever ends it, what was filed
is kept and run.json says how it ended; the same command goes on from there.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from typing import Any

import kleval
from kleval.store import Row, RunStore
from kleval.store.machine import commit
from kleval.store.manifest import Status, now
from kleval.store.settings import check
from kleval.types import INTERNAL, INTERRUPTED, OK, USAGE, UsageError
from kleval.work import events as ev
from kleval.work.job import Job, Session, Verdict
from kleval.work.result import EXIT_CODES, Result
from kleval.work.unit import Done, Record, Unit

MANIFEST_EVERY_SECONDS = 15.0
OnEvent = Callable[[ev.Event], None]


def work(job: Job, on_event: OnEvent = lambda event: None) -> Result:
    """Do what the job's spec says, continuing what its run directory holds. Prints nothing; see kleval.work.events.

    A KeyboardInterrupt ends it with the state saved and is not raised again (exit code 130). UsageError: what is asked cannot be done,
    or the directory belongs to another command, is in use, damaged or full. Any other error is raised once the state is saved.
    """
    spec = job.spec
    spec.check()
    old = None
    if spec.out is not None:
        RunStore.check_place(spec.out, job.kind)
        if RunStore.exists(spec.out):
            old = RunStore.open(spec.out)
            check(old.manifest["settings"], job.settings(), spec.out, job.amend, True, old.answered_tasks())
    with job.open(old):
        settings = dict(job.settings())
        if old is not None:
            check(old.manifest["settings"], settings, spec.out, job.amend, spec.dry_run, old.answered_tasks())
        on_event(ev.Started(spec, job.models, job.environment, settings, continued=old is not None))
        with contextlib.ExitStack() as stack:
            try:
                units = tuple(job.units(lambda text: on_event(ev.Phase(text))))
                facts = head(job, settings, units)
                if spec.out is None or spec.dry_run:
                    session = None
                else:
                    store = stack.enter_context(RunStore.create(spec.out, facts, job.amend))
                    session = Running(job, units, store, on_event)
            except BaseException as error:
                ended = _cut(job, error, {})
                on_event(ev.Finished(ended))
                if isinstance(error, KeyboardInterrupt):
                    return ended
                raise
            return session.run(facts) if session is not None else _dry_run(job, units, facts, on_event)


def head(job: Job, settings: Mapping[str, Any], units: Sequence[Unit]) -> dict[str, Any]:
    """The fields of run.json (kleval.store.manifest) as they are when a session begins."""
    started, facts = now(), dict(job.facts())
    here = {"kleval": {"version": kleval.__version__, "commit": commit()}, "hardware": dict(job.environment)}
    called: dict[str, Any] = {"title": job.spec.name} if job.spec.name else {}
    called |= {"verify": dict(job.spec.verified)} if job.spec.verified else {}
    session = {"started": started, "finished": None, "status": "running", **here, **facts.pop("session", {})}
    return {
        "kind": job.kind,
        "command": job.command,
        "status": "running",
        "started": started,
        "finished": None,
        **here,
        **called,
        "tags": dict(job.spec.tags),
        "spec": job.spec.record(),
        "settings": dict(settings),
        "counts": {"planned": sum(unit.n for unit in units)},
        "caveats": [],
        **facts,
        "sessions": [session],
    }


class Running(Session):
    """The session as the loop sees it."""

    def __init__(self, job: Job, units: Sequence[Unit], store: RunStore, emit: OnEvent) -> None:
        super().__init__(job, units, store, emit)
        self._written = time.monotonic()

    def run(self, facts: Mapping[str, Any]) -> Result:
        """Work on all that is open, and say how it ended in the manifest and as the last event."""
        try:
            manifest = self.store.manifest
            amended = manifest["amendments"][-1]["changes"] if self.job.amend and manifest["amendments"] else ()
            told = ev.Planned(
                self.units,
                self.meter.n_total,
                self.meter.n_done,
                facts,
                tuple(self.skips),
                tuple(self.store.repaired),
                tuple(amended),
                tuple(manifest["caveats"]),
            )
            _tell_plan(told, self.emit)
            open_ = [unit for unit in self.units if self.n_done(unit) < unit.n]
            groups = [list(group) for _, group in groupby(open_, key=lambda unit: unit.group)]
            if self.job.side_by_side:
                self._measure(open_)
                groups = []
            for group in groups:
                self._measure(self.in_time(group))
                if self.stopped:
                    break
            result = self._end()
        except BaseException as error:
            result = self._cut(error)
            if not isinstance(error, KeyboardInterrupt):
                self.emit(ev.Finished(result))
                raise
        self.emit(ev.Finished(result))
        return result

    def _measure(self, group: Sequence[Unit]) -> None:
        if not group:
            return
        with contextlib.ExitStack() as stack:
            records = self.job.measure(group, self)
            if (close := getattr(records, "close", None)) is not None:
                stack.callback(close)
            for unit, record in records:
                self._file(unit, record)
                if self.stopped:
                    break

    def _file(self, unit: Done, record: Record) -> None:
        if isinstance(record, Row):
            self.store.append(record, unit.prompt)
        else:
            self.store.append_point(record)
            if not record.failed:
                self.done[record.id] = record
        self.meter.done(unit.weight, record.failed)
        self.emit(ev.UnitDone(record))
        self.progress(unit)
        most, failed = self.job.max_errors, self.meter.n_failed
        if most is not None and failed > tolerated(most, self.meter.n_total):
            self.stop(f"ended early: {failed} answers failed, more than --max-errors {most:g}")
        if time.monotonic() - self._written > MANIFEST_EVERY_SECONDS:
            self._save("running", self.job.verdict(self))

    def _end(self) -> Result:
        verdict = self.job.verdict(self)
        problem = verdict.problem or self.stopped
        status: Status = "incomplete" if problem else "complete"
        self._save(status, verdict)
        return Result(
            status,
            EXIT_CODES[status],
            self.store.path,
            verdict.counts,
            problem,
            self.units,
            tuple(self.skips),
            verdict.again,
        )

    def _cut(self, error: BaseException) -> Result:
        """For what was ended by something else than its end. The disk may be what ended it: then the manifest keeps saying
        `running`, which reads as interrupted once the lock is free."""
        counts: Mapping[str, int] = {}
        with contextlib.suppress(UsageError):
            verdict = self.job.verdict(self)
            counts = verdict.counts
            self._save("interrupted", verdict)
        return _cut(self.job, error, counts, self.units, self.skips)

    def _save(self, status: Status, verdict: Verdict) -> None:
        self._written = time.monotonic()
        over = status != "running"
        fields = dict(verdict.fields)
        last = {"status": status, "finished": now() if over else None, "seen": now(), **fields.pop("session", {})}
        sessions = list(self.store.manifest["sessions"])
        sessions[-1] = {**sessions[-1], **last}
        finished = now() if status in ("complete", "incomplete") else None
        self.store.update(status=status, finished=finished, sessions=sessions, counts=dict(verdict.counts), **fields)


def tolerated(max_errors: float | None, planned: int) -> float:
    """How many failed records leave a command complete. max_errors: a count (>= 1) or a share of all (< 1); None: none do."""
    if max_errors is None:
        return 0
    return max_errors if max_errors >= 1 else max_errors * planned


def describe(error: BaseException) -> str:
    """An exception as one line."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text[:500]}" if text else type(error).__name__


def _cut(
    job: Job,
    error: BaseException,
    counts: Mapping[str, int],
    units: tuple[Unit, ...] = (),
    skips: Sequence[Mapping[str, Any]] = (),
) -> Result:
    if isinstance(error, KeyboardInterrupt):
        code, message = INTERRUPTED, f"interrupted, everything {job.done_word} is kept"
    else:
        code, message = USAGE if isinstance(error, UsageError) else INTERNAL, describe(error)
    return Result("interrupted", code, job.spec.out, counts, message, units, tuple(skips))


def _dry_run(job: Job, units: tuple[Unit, ...], facts: Mapping[str, Any], on_event: OnEvent) -> Result:
    n, n_done = sum(unit.n for unit in units), sum(unit.n_done for unit in units)
    skips = tuple(job.skips)
    _tell_plan(ev.Planned(units, n, n_done, facts, skips, caveats=tuple(facts["caveats"])), on_event)
    counts = {"planned": n, job.done_word: n_done, "skipped": sum(skip.get("n", 1) for skip in skips)}
    result = Result("complete", OK, None, counts, "", units, skips)
    on_event(ev.Finished(result))
    return result


def _tell_plan(plan: ev.Planned, emit: OnEvent) -> None:
    emit(plan)
    for skip in plan.skips:
        emit(ev.Skipped(skip))
