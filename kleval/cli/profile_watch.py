"""What `kleval profile` says: its first lines, the plan, live progress, the tables, and where things are.

Words for people go to stderr and the tables to stdout; with --json stdout has `launch`, `point` and `done` records instead.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from kleval import __version__
from kleval.cli.console import emit, note, table
from kleval.cli.profile_table import print_profile
from kleval.profiler.plan import Plan
from kleval.profiler.served.spec import ServedSpec
from kleval.profiler.workload import ProfileSpec
from kleval.store import Point
from kleval.text import duration, format_length, format_lengths, number, size
from kleval.work import Result
from kleval.work import events as ev

PLAIN_EVERY_SECONDS = 5.0


class ProfileWatch:
    """Called with every event of a profile; `finish` once with its result. Use as a context manager."""

    def __init__(self, spec: ProfileSpec | ServedSpec, format: str, as_json: bool, quiet: bool) -> None:
        self._spec, self._format, self._json, self._quiet = spec, format, as_json, quiet
        self._bar: Any = None
        self._row: Any = None
        self._drawn = time.monotonic()
        self._launched = self._done = False
        self._planned = Plan((), 0, 0)

    def __enter__(self) -> ProfileWatch:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._stop()
        if error is not None and self._launched and not self._done and self._json:
            emit("done", status="error", message=" ".join(str(error).split()), out=_text(self._spec.out))

    def __call__(self, event: ev.Event) -> None:
        match event:
            case ev.Started():
                self._start(event)
            case ev.Phase():
                self._say(f"  {event.text}")
            case ev.Planned():
                self._plan(Plan.from_record(event.facts["plan"]), event.n_done, event.repaired)
            case ev.UnitDone(record=Point() as point):
                self._point(point)
            case ev.Progress():
                self._progress(event)
            case ev.Finished():
                self._stop()
            case _:
                pass

    def finish(self, result: Result) -> None:
        """The tables and files of a profile that has ended; of a dry run, nothing."""
        report, leaderboard = None, None
        if result.out is not None and not self._spec.dry_run and result.counts.get("measured"):
            from kleval.store import RunStore
            from kleval.tables.costs import make_profile

            store = RunStore.open(result.out)
            if not self._json:
                print_profile(make_profile(tuple(store.points()), store.manifest), self._format)
            if result.status != "interrupted":
                report, leaderboard = write_files(store)
        if self._json:
            self._done = True
            emit(
                "done",
                status=result.status,
                exit_code=result.exit_code,
                message=result.message,
                counts=result.counts,
                out=_text(result.out),
                report=_text(report),
                table=_text(leaderboard),
            )
        self._say_where(result, report, leaderboard)

    def _start(self, event: ev.Started) -> None:
        spec, environment = self._spec, event.environment
        self._launched = True
        if self._json:
            emit(
                "launch",
                kleval=__version__,
                models=list(event.models),
                ctx=list(spec.ctxs),
                batch=list(spec.concurrencies if isinstance(spec, ServedSpec) else spec.batches),
                settings=dict(event.settings),
                environment=dict(environment),
                out=_text(spec.out),
                continued=event.continued,
                dry_run=spec.dry_run,
            )
        self._say(f"kleval {__version__}")
        if isinstance(spec, ServedSpec):
            from kleval.cli.profile_served import first_lines

            for line in first_lines(spec, event):
                self._say(line)
        else:
            self._say_native(spec, event)
        if spec.out is not None:
            self._say(f"  out       {spec.out}{' (continued)' if event.continued else ''}")

    def _say_native(self, spec: ProfileSpec, event: ev.Started) -> None:
        environment = event.environment
        where = environment["gpu"] or f"{environment['cpu']}, {environment['threads']} threads"
        self._say(f"  models    {', '.join(event.models)} (random weights)")
        self._say(f"  ctx       {format_lengths(spec.ctxs)}")
        self._say(f"  decode    batch {', '.join(map(str, spec.batches))}; prefill {spec.prefill}")
        self._say(f"  machine   {where}; dtype {event.settings['dtype']}, torch {environment['torch']}")

    def _plan(self, plan: Plan, n_done: int, repaired: tuple[Path, ...]) -> None:
        self._planned = plan
        for path in repaired:
            self._say(f"  repaired  {path}: a line cut short by a kill was removed")
        for text in plan.notes:
            self._say(f"  note      {text}")
        for one in plan.unmeasured:
            what = f"{one['model']}, {one['protocol']} at {format_length(one['ctx'])}"
            self._say(f"  not measured  {what}: {one['reason']}")
        if self._spec.dry_run:
            self._print_plan(plan)
            return
        before = f" ({n_done} are there already)" if n_done else ""
        if isinstance(self._spec, ServedSpec):
            self._say(f"  work      {len(plan.points) - n_done} rounds{before}")
        else:
            self._say_work(plan, n_done, before)
        if not self._quiet and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn

            columns = (TextColumn("{task.fields[label]}", markup=False), BarColumn(), TextColumn("{task.fields[line]}"))
            # A thread that redraws would take a core from what is being timed: drawn only when something is said.
            self._bar = Progress(*columns, console=Console(stderr=True), transient=True, auto_refresh=False)
            self._row = self._bar.add_task("", total=None, label="", line="starting")
            self._bar.start()

    def _say_work(self, plan: Plan, n_done: int, before: str) -> None:
        self._say(
            f"  work      {len(plan.points) - n_done} points{before}, about {duration(plan.seconds)} in all, chunks of "
            f"{plan.chunk_tokens}, states of a largest batch in {size(plan.memory_budget)}"
        )

    def _print_plan(self, plan: Plan) -> None:
        rows = [
            {
                "point": point.id,
                "batch": point.batch,
                "seconds": round(point.seconds, 4),
                "state_bytes": point.state_bytes,
                "steps": point.steps,
            }
            for point in plan.points
        ]
        if self._json or self._format in ("json", "jsonl", "csv"):
            from kleval.cli.profile_table import print_records

            if self._json:
                for row in rows:
                    emit("planned", **row)
            else:
                print_records(rows, self._format)
            return
        if isinstance(self._spec, ServedSpec):
            table(
                ("round", "requests together", "tokens each"), [(p.id, str(p.batch), str(p.steps)) for p in plan.points]
            )
            return
        header = ("point", "batch", "expected s", "state")
        table(header, [(p.id, p.batch, number(p.seconds), size(p.state_bytes)) for p in plan.points])

    def _point(self, point: Point) -> None:
        if self._json:
            emit("point", id=point.id, values=point.values, closed_form=point.closed_form, failure=point.failure)
        if point.failure is not None:
            self._say(f"{point.id} failed: {point.failure['message']}")

    def _progress(self, at: ev.Progress) -> None:
        if self._quiet:
            return
        left = "" if at.eta_seconds is None or at.n_done == at.n_total else f", {duration(at.eta_seconds)} to go"
        line = f"{at.n_done}/{at.n_total} points{left}"
        if self._bar is not None:
            self._bar.update(
                self._row, total=at.work_total, completed=at.work_done, label=at.label, line=line, refresh=True
            )
        elif at.n_done == at.n_total or time.monotonic() - self._drawn >= PLAIN_EVERY_SECONDS:
            self._drawn = time.monotonic()
            note(f"{line}  ({at.label})")

    def _say(self, text: str) -> None:
        if self._quiet:
            return
        if self._bar is not None:
            self._bar.console.print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            note(text)

    def _stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _say_where(self, result: Result, report: Path | None, leaderboard: Path | None) -> None:
        if isinstance(self._spec, ServedSpec) and self._spec.dry_run:
            note(f"dry run: nothing was measured; {len(self._planned.points)} rounds")
            return
        if self._spec.dry_run:
            note(
                f"dry run: nothing was measured; {len(self._planned.points)} points, about {duration(self._planned.seconds)}"
            )
            return
        if result.out is not None and result.counts:
            from kleval.store import RunStore

            for caveat in RunStore.open(result.out).manifest["caveats"]:
                note(f"note      {caveat}")
        if result.status != "complete":
            told = not result.message or result.message.startswith(result.status)
            note((result.message or result.status) if told else f"{result.status}: {result.message}")
            given = any(part == "--out" or part.startswith("--out=") for part in self._spec.command.split())
            note(f"continue  {self._spec.command}{'' if given else f' --out {self._spec.out}'}")
        for name, path in (("rows", result.out), ("report", report), ("table", leaderboard)):
            if path is not None and path.exists():
                note(f"{name:<9} {path}")


def write_files(store: Any) -> tuple[Path, Path]:
    """report.html and profile.csv of a profile's run directory."""
    from kleval.report.page import write_report
    from kleval.tables.cost_rows import write_profile_csv

    return write_report([store], store.path / "report.html"), write_profile_csv(store, store.path / "profile.csv")


def _text(path: Any) -> str | None:
    return None if path is None else str(path)
