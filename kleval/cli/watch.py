"""What `kleval run` says: its first lines, progress, the table of scores, and where things are.

Words for people go to stderr and the table to stdout; with --json stdout has a `launch` and a `done` record instead.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from kleval import __version__
from kleval.cli.console import emit, note
from kleval.cli.progress import ProgressView
from kleval.cli.scores import print_scores
from kleval.text import format_lengths
from kleval.work import Result
from kleval.work import events as ev

if TYPE_CHECKING:
    from kleval.harness.spec import RunSpec


class Watch:
    """Called with every event of a run; `finish` once with its result. Use as a context manager."""

    def __init__(self, spec: RunSpec, as_json: bool, quiet: bool) -> None:
        self._spec = spec
        self._json = as_json
        self._quiet = quiet
        self._view = ProgressView(quiet)
        self._launched = False
        self._done = False

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._view.__exit__(kind, error, tb)
        if error is not None and self._launched and not self._done and self._json:
            emit("done", status="error", message=" ".join(str(error).split()), out=_text(self._spec.out))

    def __call__(self, event: ev.Event) -> None:
        match event:
            case ev.Started():
                self._start(event)
            case ev.Planned():
                self._plan(event)
            case ev.Failed():
                note(f"{event.label}: {event.message}")
            case ev.Phase():
                self._view.say(event.text)
            case ev.Progress():
                self._view.show(event)
            case ev.Finished():
                self._view.__exit__(None, None, None)
            case _:
                pass

    def finish(self, result: Result) -> None:
        """The table and the files of a run that has ended; of a dry run, nothing."""
        report, leaderboard = None, None
        if result.out is not None and not self._spec.dry_run:
            if not self._json:
                _print_table(result.out, self._spec)
            if result.status != "interrupted" and result.counts.get("finished", 0):
                report, leaderboard = _write_files(result.out)
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
                leaderboard=_text(leaderboard),
            )
        self._say_where(result, report, leaderboard)

    def _start(self, event: ev.Started) -> None:
        spec = self._spec
        self._launched = True
        if self._json:
            emit(
                "launch",
                kleval=__version__,
                models=list(event.models),
                suite=spec.suite,
                tasks=list(spec.tasks),
                ctx=list(spec.ctxs),
                limit=spec.limit,
                repeats=spec.repeats,
                edition=spec.edition,
                protocol=spec.protocol,
                seed=spec.seed,
                temperature=spec.temperature,
                backend=spec.backend,
                device=spec.device,
                dtype=spec.dtype,
                out=_text(spec.out),
                continued=event.continued,
                dry_run=spec.dry_run,
            )
        for line in first_lines(spec, event, {} if spec.dry_run else event.models):
            note(line)

    def _plan(self, at: ev.Planned) -> None:
        for text in at.amended:
            note(f"  amended   {text}")
        for path in at.repaired:
            note(f"  repaired  {path}: a line cut short by a kill was removed")
        for text in at.caveats:
            note(f"  caveat    {text}")
        left = at.n_total - at.n_done
        before = f" ({at.n_done:,} of {at.n_total:,} are there already)" if at.n_done else ""
        tokens = sum((unit.n - unit.n_done) * unit.weight for unit in at.units)
        note(f"  work      {left:,} answers{before}, at most {tokens:,.0f} tokens")
        for line in skipped_lines(at.skips):
            note(f"  skipped   {line}")
        if not self._spec.dry_run:
            self._view.__enter__()

    def _say_where(self, result: Result, report: Path | None, leaderboard: Path | None) -> None:
        if self._spec.dry_run:
            note("dry run: nothing was asked")
            return
        note()
        if result.status != "complete":
            told = result.message.startswith(result.status)
            note(result.message if told else f"{result.status}: {result.message}")
        if result.exit_code != 0:
            note(f"continue  {_again(self._spec)}")
        for name, path in (("rows", result.out), ("report", report), ("table", leaderboard)):
            if path is not None:
                note(f"{name:<9} {path}")


def first_lines(spec: RunSpec, event: ev.Started, opened: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Everything that decides the result, defaults included. opened: the manifest's models, none for a dry run."""
    what = f"suite {spec.suite}, {len(spec.tasks)} tasks" if spec.suite else _few(spec.tasks)
    temperature = "greedy" if not spec.temperature else f"temperature {spec.temperature:g}"
    if spec.temperature is None and spec.edition == "official":
        temperature = "temperature each task’s own"
    lines = [
        f"kleval {__version__}",
        f"  models    {'; '.join(_where(spec, name, opened.get(name, {})) for name in event.models)}",
        f"  tasks     {what}",
        f"  data      edition {spec.edition}, protocol {spec.protocol or 'each task’s default'}, seed {spec.seed}",
        f"  ctx       {format_lengths(spec.ctxs)} tokens of {spec.tokenizer or 'the model'}",
        f"  samples   --limit {spec.limit} per task and length, --repeats {spec.repeats}, {temperature}",
    ]
    if spec.out is not None:
        lines.append(f"  out       {spec.out}{' (continued)' if event.continued else ''}")
    return lines


def _where(spec: RunSpec, name: str, model: Mapping[str, Any]) -> str:
    describe = model.get("describe", {})
    device, dtype = describe.get("device", spec.device), describe.get("dtype", spec.dtype)
    return f"{name} (backend {model.get('backend', spec.backend)}, device {device}, dtype {dtype})"


def skipped_lines(skips: Sequence[Mapping[str, Any]]) -> list[str]:
    """One line per task and model, its lengths together."""
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for skip in skips:
        groups.setdefault((skip["model"], skip["task"]), []).append(skip)
    return [
        f"{model}, {task} at {format_lengths(tuple(skip['ctx'] for skip in group))}:"
        f" needs {max(skip['minimum_tokens'] for skip in group):,} tokens"
        for (model, task), group in groups.items()
    ]


def _print_table(out: Path, spec: RunSpec) -> None:
    from kleval.store import RunStore
    from kleval.tables.cells import families, summarise

    store = RunStore.open(out)
    cells = summarise(store.rows(), store.manifest["skips"])
    rank = {task: place for place, task in enumerate(spec.tasks)}
    print_scores(sorted(cells, key=lambda cell: rank.get(cell.task, len(rank))), families(cells, spec.groups))


def _write_files(out: Path) -> tuple[Path, Path]:
    from kleval.report.build import write_report
    from kleval.store import RunStore
    from kleval.tables.leaderboard import write_csv

    runs = [RunStore.open(out)]
    return write_report(runs, out / "report.html"), write_csv(runs, out / "leaderboard.csv")


def _again(spec: RunSpec) -> str:
    given = any(part == "--out" or part.startswith("--out=") for part in spec.command.split())
    return spec.command if given else f"{spec.command} --out {spec.out}"


def _few(names: Sequence[str], most: int = 4) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _text(path: Any) -> str | None:
    return None if path is None else str(path)
