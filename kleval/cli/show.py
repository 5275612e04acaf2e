"""`kleval show DIR…` and `kleval status DIR…`: stored runs and profiles on the terminal, and how far they are."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kleval.cli import options
from kleval.cli.console import WIDTH, emit, note, table
from kleval.cli.runs import open_runs, readable_runs, without_studies
from kleval.text import DASH, format_length, moment

if TYPE_CHECKING:
    from kleval.store import RunStore
    from kleval.tables.costs import Profile
    from kleval.tables.scores import Entrant


@click.command(short_help="Show stored results on the terminal.")
@click.argument("directories", nargs=-1, required=True, metavar="DIR…", type=options.PLACE)
@options.option("--all-metrics", is_flag=True, help="Each task's further metrics too, below its main one.")
def show(directories: tuple[Path, ...], all_metrics: bool) -> None:
    """Show the verdict on the runs and profiles in the DIRs, as a report has it, and the tables of each.
    Costs stand beside scores where a profile is of the same models. Of trainings it shows how they went."""
    from kleval.cli.trainings import print_studies

    rest, trained = without_studies(directories)
    print_studies(trained)
    stores, unread = readable_runs(rest)
    entrants, profiles, empty = _read(stores)
    if entrants or profiles:
        _verdict(entrants, profiles)
    for store in stores:
        if store not in empty:
            _tables(store, all_metrics)
    for text in [*unread, *(f"{store.path} holds nothing yet: see kleval status" for store in empty)]:
        note(f"left out: {text}")


def _read(stores: Sequence[RunStore]) -> tuple[list[Entrant], list[Profile], list[RunStore]]:
    """What the stores hold, and those that hold nothing."""
    from kleval.tables.costs import read_profile
    from kleval.tables.scores import collect
    from kleval.types import UsageError

    entrants, profiles, empty = [], [], []
    for store in stores:
        try:
            if store.is_profile:
                profiles.append(read_profile(store))
        except UsageError:
            empty.append(store)
    runs = [store for store in stores if store.is_run]
    if runs:
        with suppress(UsageError):
            entrants = collect(runs)
        answered = [e.run.store for e in entrants]
        empty += [store for store in runs if store not in answered and not store.is_profile]
    return entrants, profiles, empty


def _verdict(entrants: Sequence[Entrant], profiles: Sequence[Profile]) -> None:
    from kleval.report.header import looks
    from kleval.report.seed_sections import seed_tables
    from kleval.report.verdict import verdict

    found = verdict(entrants, profiles, *looks(entrants, profiles))
    if found.sentence:
        click.echo(textwrap.fill(found.sentence, WIDTH, break_on_hyphens=False, break_long_words=False))
    if found.lines:
        click.echo()
        heads = ["model", *(f"{name}{' ↓' if less else ''}" for name, less in found.columns)]
        rows = [
            [line.label, *(f"{n.value} [{n.interval}]" if n.interval else n.value for n in line.numbers)]
            for line in found.lines
        ]
        table(heads, rows, lead=1)
    for what, heads, rows in seed_tables(entrants):
        click.echo(f"\nover training seeds, {what}, score × 100 [95 % over samples]")
        table(heads, rows, lead=1)


def _tables(store: RunStore, all_metrics: bool) -> None:
    from kleval.cli.profile_table import print_profile
    from kleval.cli.scores import print_run
    from kleval.cli.sessions import speed_lines
    from kleval.tables.costs import read_profile

    click.echo(f"\n{store.path}: {', '.join(_state(store))}")
    if store.is_profile:
        click.echo()
        print_profile(read_profile(store), "table")
    if not store.is_run:
        return
    print_run(store, all_metrics)
    for line in speed_lines(store):
        click.echo(f"\n{line}")


def _state(store: RunStore) -> Iterator[str]:
    yield from [store.manifest["title"]] if store.manifest["title"] else []
    yield str(store.manifest.get("kind", "run"))
    yield str(store.status)
    yield moment(store.manifest.get("started"))
    yield from (f"{key}={value}" for key, value in store.manifest["tags"].items())


@click.command(short_help="Say how far runs and profiles are.")
@click.argument("directories", nargs=-1, required=True, metavar="DIR…", type=options.PLACE)
@options.json_output
def status(directories: tuple[Path, ...], as_json: bool) -> None:
    """Say of each run or profile in the DIRs whether it is complete, what is there of what was planned, what failed, and which
    command goes on with it. Nothing is changed, whether it is still written or not."""
    for store in open_runs(directories):
        record = _progress(store)
        if as_json:
            emit("status", **record)
            continue
        click.echo(f"{record['run']}: {', '.join(_state(store))}")
        planned = f" of {record['planned']:,}" if record["planned"] else ""
        click.echo(
            f"{record['done']:,}{planned} {record['records']} are there, {record['failed'] or 'none'} failed"
            + _last(record)
        )
        rows = [
            [model, *(counts.get(ctx, DASH) for ctx in record["ctxs"])] for model, counts in record["models"].items()
        ]
        if rows:
            table(["model", *map(format_length, record["ctxs"])], rows, lead=1)
        for kind, n in record["failures"].items():
            click.echo(f"failed    {n:,} {kind}")
        if record["status"] != "complete" and record["command"]:
            click.echo(f"continue  {record['command']}")
        click.echo()


def _last(record: dict[str, Any]) -> str:
    return f", the last one at {moment(record['last'])}" if record["last"] else ""


def _progress(store: RunStore) -> dict[str, Any]:
    """Counted from the records themselves: a killed command had no time to count."""
    records: Any = store.points() if store.is_profile else store.rows()
    models: dict[str, Counter[int]] = {}
    failures: Counter[str] = Counter()
    last = ""
    for one in records:
        if one.model:
            models.setdefault(one.model, Counter())[one.ctx] += 1
        if one.failed:
            failures[(one.failure or {}).get("kind", "unknown")] += 1
        last = max(last, str(one.finished or ""))
    manifest = store.manifest
    done = sum(sum(counts.values()) for counts in models.values())
    return {
        "run": str(store.path),
        "kind": manifest.get("kind", "run"),
        "status": str(store.status),
        "started": manifest.get("started", ""),
        "last": last,
        "records": "measurements" if store.is_profile else "answers",
        "planned": manifest.get("counts", {}).get("planned", 0),
        "done": done,
        "failed": sum(failures.values()),
        "failures": dict(failures),
        "ctxs": sorted({ctx for counts in models.values() for ctx in counts}),
        "models": {model: dict(counts) for model, counts in models.items()},
        "command": manifest.get("spec", {}).get("command", ""),
    }
