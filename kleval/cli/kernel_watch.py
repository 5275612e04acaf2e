"""What `kleval profile kernels` says: what is being timed, the tables, and where things are. Words go to stderr, tables to stdout."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from types import TracebackType
from typing import Any

from kleval import __version__
from kleval.cli.console import emit, note
from kleval.cli.profile_table import print_profile, print_records, print_table
from kleval.profiler.operators import flops, nbytes
from kleval.profiler.workload import KernelSpec
from kleval.store import Point
from kleval.text import format_length, format_lengths, size
from kleval.work import Result
from kleval.work import events as ev


class KernelWatch:
    """Called with every event; `finish` once with the result. Use as a context manager."""

    def __init__(self, spec: KernelSpec, kind: str, as_json: bool, quiet: bool) -> None:
        self._spec, self._kind, self._json, self._quiet = spec, kind, as_json, quiet
        self._live = not quiet and sys.stderr.isatty()
        self._launched = self._done = False

    def __enter__(self) -> KernelWatch:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._wipe()
        if error is not None and self._launched and self._json and not self._done:
            emit("done", status="error", message=" ".join(str(error).split()), out=self._spec.out)

    def __call__(self, event: ev.Event) -> None:
        match event:
            case ev.Started():
                self._start(event)
            case ev.Planned() if self._spec.dry_run:
                self._plan(event)
            case ev.UnitDone(record=Point() as point):
                self._point(point)
            case ev.Progress() if self._live:
                self._wipe()
                sys.stderr.write(f"  {event.label}")
                sys.stderr.flush()
            case _:
                pass

    def _start(self, event: ev.Started) -> None:
        spec, self._launched = self._spec, True
        if self._json:
            emit("launch", kleval=__version__, ctx=spec.ctxs, heads=spec.heads, head_dim=spec.head_dim, out=spec.out)
        self._say(f"kleval {__version__}")
        shapes = f"batch 1, {', '.join(map(str, spec.heads))} heads of {spec.head_dim}"
        self._say(f"  kernels   {shapes}, {format_lengths(spec.ctxs)} tokens")
        if spec.out is not None:
            self._say(f"  out       {spec.out}{' (continued)' if event.continued else ''}")

    def _point(self, point: Point) -> None:
        if self._json:
            emit("point", id=point.id, values=point.values, closed_form=point.closed_form, failure=point.failure)
        if point.failure is not None and point.repeat == 0:
            self._wipe()
            self._say(f"  failed    {point.id.rpartition('/')[0]}: {point.failure['message']}")

    def finish(self, result: Result) -> None:
        """The tables and files of a run that has ended; of a dry run, its plan."""
        self._wipe()
        if self._spec.dry_run:
            note(f"dry run: nothing was measured; {self._shapes} shapes, {self._spec.repeats} repeats each")
            return
        report, table = None, None
        assert result.out is not None
        from kleval.store import RunStore

        store = RunStore.open(result.out)
        if any(point.kind == "kernel" for point in store.points()):
            from kleval.cli.profile_watch import write_files
            from kleval.tables.costs import read_profile

            if not self._json:
                print_profile(read_profile(store), self._kind)
            if result.status != "interrupted":
                report, table = write_files(store)
        if self._json:
            self._done = True
            emit(
                "done",
                status=result.status,
                exit_code=result.exit_code,
                message=result.message,
                counts=result.counts,
                unmeasured=result.skips,
                out=result.out,
                report=report,
                table=table,
            )
        left: dict[tuple[str, int], list[Mapping[str, Any]]] = {}
        for one in result.skips:
            left.setdefault((one["operator"], one["heads"]), []).append(one)
        for (operator, heads), found in left.items():
            lengths = ", ".join(format_length(one["ctx"]) for one in found)
            self._say(f"not measured  {operator}, {heads} heads, at {lengths} ({found[0]['reason']})")
        for caveat in store.manifest["caveats"]:
            self._say(f"note      {caveat}")
        if result.status != "complete":
            note(f"{result.status}: {result.message}" if result.message else result.status)
        for name, path in (("rows", result.out), ("report", report), ("table", table)):
            if path is not None and path.exists():
                self._say(f"{name:<9} {path}")

    def _plan(self, event: ev.Planned) -> None:
        records = kernel_plan(event.units, self._spec.head_dim, event.facts["dtype"])
        self._shapes = len(records)
        if self._json or self._kind in ("json", "jsonl", "csv"):
            print_records(records, "jsonl" if self._json else self._kind)
            return
        cells = [
            [
                *(str(r[name]) for name in ("operator", "protocol", "heads")),
                format_length(r["ctx"]),
                f"{r['flops'] / 1e9:,.3g}",
                size(r["bytes"]),
            ]
            for r in records
        ]
        print_table(("operator", "form", "heads", "tokens", "GFLOP", "bytes"), cells, self._kind)

    def _say(self, text: str) -> None:
        if not self._quiet:
            note(text)

    def _wipe(self) -> None:
        if self._live:
            sys.stderr.write("\r\x1b[2K")
            sys.stderr.flush()


def kernel_plan(units: Iterable[Any], head_dim: int, dtype: str) -> list[dict[str, Any]]:
    """What a shape will compute and move, one record each."""
    found = []
    for unit in units:
        if unit.kind == "kernel" and unit.repeat == 0:
            shape = (unit.model, unit.protocol, unit.ctx, unit.heads, head_dim)
            named = {"operator": unit.model, "protocol": unit.protocol, "heads": unit.heads, "ctx": unit.ctx}
            found.append({**named, "flops": flops(*shape), "bytes": nbytes(*shape, dtype)})
    return found
