"""Output of a command that works: its first lines, the plan, progress, the results, and where they are.

Words for people go to stderr and results to stdout; with --json stdout has a `launch`, perhaps `planned` or `point`, and a `done`
record instead. What differs between the kinds of commands is in their Show (kleval.cli.shows).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from kleval import __version__
from kleval.cli.console import debugging, emit, note
from kleval.cli.profile_table import print_records, print_table
from kleval.cli.progress import ProgressView
from kleval.cli.shows import Show
from kleval.store import Point, RunStore
from kleval.work import Result, Spec, Unit
from kleval.work import events as ev
from kleval.work.loop import OnEvent

HEAD_AFTER_SECONDS = 0.5
KNOWN_WHEN_QUIET = ("caveat", "note", "not measured")  # lines of the plan that a reader of the results must know


class Watch:
    """Called with every event of a command; `finish` once with its result. Use as a context manager.

    The first lines are said once there is a plan or HEAD_AFTER_SECONDS are over, so that a command that takes long to open is not
    silent, and a refusal that comes at once is one line.

    quiet: nothing but what went wrong and what a reader of the results must know; a dry run says all.
    """

    def __init__(self, spec: Spec, show: Show, as_json: bool, quiet: bool) -> None:
        self._spec, self._show, self._json = spec, show, as_json
        self._quiet = quiet and not spec.dry_run  # what a dry run says is all that it does
        self._view = ProgressView(show.unit, show.rate, quiet)
        self._launched = self._done = False
        self._planned: ev.Planned | None = None
        self._failures: set[tuple[str, str]] = set()
        self._head = threading.Lock()
        self._head_told = self._start_told = False
        self._started: ev.Started | None = None
        self._timer = threading.Timer(HEAD_AFTER_SECONDS, self._tell_first_lines)
        self._timer.daemon = True

    def __enter__(self) -> Watch:
        if self._show.head_lines() and not self._quiet:
            self._timer.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._timer.cancel()
        self._view.__exit__(kind, error, tb)
        if error is not None and self._launched and not self._done and self._json:
            emit("done", status="error", message=" ".join(str(error).split()), out=_text(self._spec.out))

    def __call__(self, event: ev.Event) -> None:
        if self._started is not None and not isinstance(event, ev.Started | ev.Finished):
            self._timer.cancel()
            self._tell_first_lines()
        match event:
            case ev.Started():
                self._start(event)
            case ev.Phase():
                self._view.say(f"  {event.text}")
            case ev.Planned():
                self._plan(event)
            case ev.Failed():
                self._view.warn(f"{event.label}: {event.message}")
                if event.traceback and debugging():
                    self._view.warn(event.traceback.rstrip())
            case ev.UnitDone(record=Point() as point):
                self._point(point)
            case ev.Progress():
                self._view.show(event)
            case ev.Finished():
                self._view.__exit__(None, None, None)
            case _:
                pass

    def finish(self, result: Result) -> None:
        """The results and files of a command that has ended; of a dry run, that it was one."""
        files: dict[str, Path] = {}
        lines: list[str] = []
        if result.out is not None and not self._spec.dry_run and result.counts:
            store = RunStore.open(result.out)
            if not self._json:
                self._show.print_results(store)
            if result.status != "interrupted" and self._show.holds_results(store, result):
                files = write_files(self._show, store)
            lines = self._show.last_lines(store, result)
        if self._json:
            self._done = True
            emit(
                "done",
                status=result.status,
                exit_code=result.exit_code,
                message=result.message,
                counts=result.counts,
                **self._show.done(result),
                out=_text(result.out),
                report=_text(files.get("report")),
                **{self._show.table: _text(files.get("table"))},
            )
        if self._spec.dry_run:
            if self._planned is not None:
                note(f"dry run: {self._show.dry_run(self._planned)}")
            return
        if self._quiet and result.status == "complete":
            return
        for line in lines:
            note(line)
        self._say_where(result, files)

    def _start(self, event: ev.Started) -> None:
        spec = self._spec
        self._launched = True
        if self._json:
            told = {"out": _text(spec.out), "continued": event.continued, "dry_run": spec.dry_run}
            emit("launch", kleval=__version__, models=list(event.models), **self._show.launch(event), **told)
        self._started = event
        if self._head_told:
            self._tell_first_lines()

    def _tell_first_lines(self) -> None:
        """What of them is known and was not said yet."""
        if self._quiet:
            return
        with self._head:
            event, spec = self._started, self._spec
            if not self._head_told:
                self._head_told = True
                note(f"kleval {__version__}")
                for line in self._show.head_lines(opening=event is None):
                    note(f"  {line}")
            if event is not None and not self._start_told:
                self._start_told = True
                for line in self._show.first_lines(event):
                    note(f"  {line}")
                if spec.out is not None:
                    note(f"  out       {spec.out}{' (continued)' if event.continued else ''}")

    def _plan(self, event: ev.Planned) -> None:
        self._planned = event
        for text in event.amended:
            note(f"  amended   {text}")
        for path in event.repaired:
            note(f"  repaired  {path}: a line cut short by a kill was removed")
        for line in self._show.plan_lines(event):
            if not self._quiet or line.startswith(KNOWN_WHEN_QUIET):
                note(f"  {line}")
        if self._spec.dry_run:
            self._print_plan(event.units, event.facts)
        else:
            self._view.__enter__()

    def _print_plan(self, units: Sequence[Unit], facts: Mapping[str, Any]) -> None:
        told = [one for unit in units if (one := self._show.planned(unit, facts)) is not None]
        records, format = [record for record, _ in told], self._show.format
        if self._json:
            for record in records:
                emit("planned", **record)
        elif told and format in ("table", "md"):
            print_table(self._show.plan_header, [[str(cell) for cell in cells] for _, cells in told], format)
        elif told:
            print_records(records, format)

    def _point(self, point: Point) -> None:
        if self._json:
            emit("point", id=point.id, values=point.values, closed_form=point.closed_form, failure=point.failure)
        if point.failure is not None:
            what, message = point.id.rpartition("/")[0], point.failure["message"]
            if (what, message) not in self._failures:  # the same for every repeat is said once
                self._view.warn(f"{point.id} failed: {message}")
            self._failures.add((what, message))

    def _say_where(self, result: Result, files: Mapping[str, Path]) -> None:
        if result.status != "complete":
            told = not result.message or result.message.startswith(result.status)
            note((result.message or result.status) if told else f"{result.status}: {result.message}")
            given = any(part == "--out" or part.startswith("--out=") for part in self._spec.command.split())
            if result.again:
                note(f"continue  {self._spec.command}{'' if given else f' --out {self._spec.out}'}")
        for name, path in {"rows": result.out, **files}.items():
            if path is not None and path.exists():
                note(f"{name:<9} {path}")


def watched(work: Callable[[OnEvent], Result], spec: Spec, show: Show, as_json: bool, quiet: bool) -> int:
    """The exit code of work, which is shown while it goes."""
    with Watch(spec, show, as_json, quiet) as watch:
        result = work(watch)
        watch.finish(result)
    return result.exit_code


def write_files(show: Show, store: RunStore) -> dict[str, Path]:
    """The page and the tables of a directory, in it."""
    from kleval.report.page import write_report

    tables = show.write_tables(store)  # first: they are small, and what fills the disk is the page
    return {"report": write_report([store], store.path / "report.html"), **tables}


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)
