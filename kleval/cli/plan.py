"""`kleval plan`: what a run costs before it starts, on hardware that need not be here."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from kleval.cli import complete, options
from kleval.cli.console import emit, note, table
from kleval.cli.formats import formats, formats_of
from kleval.cli.run import DEFAULT_CTX, DEFAULT_LIMIT, asked_tasks
from kleval.lengths import parse_lengths
from kleval.text import DASH, count, duration, format_length, format_lengths, number, plural, size
from kleval.types import UsageError

if TYPE_CHECKING:
    from kleval.planning import ModelPlan, RunPlan, Span

ALL = "all"


def read_limit(text: str | None) -> int | str | None:
    """A number, `all`, or None. UsageError for anything else."""
    if text is None or text == ALL:
        return text
    if not (text.isascii() and text.isdigit() and int(text)):
        raise UsageError(
            f"--limit {text}: write a number of samples from 1, or all for every sample of the official data"
        )
    return int(text)


@click.command(short_help="What a run costs before it starts, on hardware that need not be here.")
@options.option(
    "--model",
    envvar="KLEVAL_PLAN_MODEL",
    default="kimi-linear@48b-a3b",
    metavar="NAMES",
    shell_complete=complete.shapes,
    help="Models, comma-separated: NAME[@SIZE], a published one like kimi-k3, a config.json, a directory or a hub id.",
)
@options.option(
    "--suite", metavar="NAME", shell_complete=complete.suites, help="A named list of tasks.  [default: long]"
)
@options.option(
    "--tasks", metavar="NAMES", shell_complete=complete.tasks, help="Tasks and families instead of a suite."
)
@options.option("--ctx", default=DEFAULT_CTX, metavar="LENGTHS", help="Lengths: 4k,128k,1m or 4k-1m*2.")
@options.option(
    "--limit",
    envvar="KLEVAL_PLAN_LIMIT",
    metavar="N|all",
    help="Samples per task and length, or all that the official data have.  [default: 10, as kleval run]",
)
@options.option("--repeats", type=click.IntRange(min=1), default=1, help="Answers per sample.")
@options.edition
@options.protocol
@options.option(
    "--hardware",
    envvar="KLEVAL_PLAN_HARDWARE",
    metavar="NxGPU",
    help="What it would run on, like 8xh200 or h100.  [default: what --measured was made on]",
)
@options.option(
    "--measured",
    type=click.Path(path_type=Path),
    multiple=True,
    metavar="DIR",
    help="A profile made on that hardware, as often as needed: its rows give the rates, of its dtype unless --dtype names one.  "
    "[default: a range of the datasheet's]",
)
@options.option(
    "--price",
    type=options.Number(min=0, min_open=True),
    metavar="X",
    help="What an hour of one device costs; money is not told without.",
)
@options.option(
    "--tp",
    type=click.IntRange(min=1),
    envvar="KLEVAL_PLAN_TP",
    metavar="N",
    help="Devices per replica of a model.  [default: as few as hold it]",
)
@options.batch
@formats("PLAN")
@options.tokenizer
@options.data_dir
@options.json_output
@click.pass_context
def plan(command: click.Context, /, as_json: bool, **given: Any) -> None:
    """Requests, tokens, memory, device-hours and money of a run, without a model, a GPU or the official data.

    Of the official edition samples are counted as its cards say, of the builtin one a first sample of each task is made here. Times
    are closed forms over the rates of a profile's rows (--measured); without one they are a range between two assumed shares of what
    the datasheet promises. Answers are taken to use their whole budget.
    """
    from kleval.harness.spec import RunSpec
    from kleval.planning import plan_run, records, task_ids
    from kleval.store import RunStore
    from kleval.tasks.registry import loader, make_task

    limit = read_limit(given["limit"])
    if given["measured"] and command.get_parameter_source("dtype") is ParameterSource.DEFAULT:
        given["dtype"] = RunStore.open(given["measured"][0]).manifest.get("dtype") or given["dtype"]
    suite, wanted, ctx = asked_tasks(command, given)
    spec = RunSpec(
        models=options.names(given["model"]),
        tasks=task_ids(wanted, given["edition"], given["protocol"]),
        named=(),
        dry_run=True,
        ctxs=parse_lengths(ctx),
        ctxs_given=command.get_parameter_source("ctx") is not ParameterSource.DEFAULT,
        limit=limit if isinstance(limit, int) else (suite.limit if suite else None) or DEFAULT_LIMIT,
        **options.as_given(given, "repeats", "edition", "protocol", "tokenizer", "batch", "data_dir"),
    )
    found = plan_run(
        spec,
        loader(spec.tasks, spec.edition, spec.protocol, spec.data_dir, make_task),
        given["hardware"],
        given["measured"],
        every=limit == ALL,
        price=given["price"],
        tp=given["tp"],
        formats=formats_of(given["dtype"], given["weights"], given["kv"]),
    )
    if as_json:
        for record in records(found):
            emit(**record)
        return
    for text in found.notes:
        note(text)
    for model in found.models:
        _show_model(model, found)
    _show_total(found, "all samples of the official data" if limit == ALL else f"--limit {spec.limit}", spec.edition)


def _show_model(model: ModelPlan, found: RunPlan) -> None:
    groups: dict[tuple[int, str], list[int]] = {}
    for i, load in enumerate(model.loads):
        groups.setdefault((load.ctx, load.task.partition("/")[0]), []).append(i)
    cells = []
    for (ctx, family), at in sorted(groups.items(), key=lambda group: group[0][0]):
        loads, spans = [model.loads[i] for i in at], [model.seconds[i] for i in at]
        n_tasks = len({load.task for load in loads})
        devices = model.place.split.devices if model.place else 1
        hours = None
        if None not in spans:
            hours = tuple(devices * sum(span[end] for span in spans if span) / 3600 for end in (0, 1))
        cells.append(
            (
                format_length(ctx),
                family + (f" ({n_tasks} tasks)" if n_tasks > 1 else ""),
                f"{sum(load.n for load in loads):,}",
                f"{sum(load.asked() + load.asked(judging=True) for load in loads):,}",
                count(sum(load.total("read") for load in loads)),
                count(sum(load.total("written") for load in loads)),
                _span(hours) if hours else DASH,
            )
        )
    click.echo(model.name)
    table(("ctx", "tasks", "samples", "requests", "tokens read", "written", "device-hours"), cells)
    if model.place is not None:
        place = model.place
        click.echo()
        lines = [
            (
                format_length(ctx),
                size(place.weights_bytes),
                size(place.state_bytes[ctx]),
                f"{n:,}" if n else "none",
                str(model.batch[ctx]) if n else DASH,
            )
            for ctx, n in place.together.items()
        ]
        table(("ctx", "weights", "cache per request", "fit together", "planned with"), lines)
        for ctx in place.together:
            if why := place.why(ctx):
                click.echo(f"{format_length(ctx)}: {why}")
        on = plural(place.split.devices, "device")
        click.echo(f"memory  on each device; {plural(place.replicas, 'replica')} of {on}")
    if (spent := model.device_seconds) is not None:
        click.echo(f"time    {_span(tuple(end / 3600 for end in spent))} device-hours{_without(model)}")
    click.echo(f"rates   {model.basis}")
    click.echo()


def _show_total(found: RunPlan, samples: str, edition: str) -> None:
    loads = [load for model in found.models for load in model.loads]
    judged = sum(load.asked(judging=True) for load in loads)
    requests = sum(load.asked() for load in loads) + judged
    read, written = (count(sum(load.total(name) for load in loads)) for name in ("read", "written"))
    to_judge = f" ({judged:,} to the judge, which are not timed)" if judged else ""
    hardware = found.hardware.words if found.hardware else "no hardware named"
    click.echo(f"in all    {plural(len(found.models), 'model')}, edition {edition}, {samples}, {hardware}")
    click.echo(f"requests  {requests:,}{to_judge}, about {read} tokens read and at most {written} written")
    click.echo(f"time      {_time(found)}")
    if found.price is not None and found.money is not None:
        click.echo(f"money     {_span(found.money)}, at {found.price:g} per device-hour{_without(found)}")
    else:
        click.echo("money     not told: --price X says what an hour of one device costs")
    for word, told in (("counted", found.sources), ("assumed", found.assumed)):
        for text in dict.fromkeys(told.values()):
            click.echo(f"{word}   {', '.join(name for name in told if told[name] == text)}: {text}")
    skipped: dict[tuple[str, str], set[int]] = {}
    for skip in found.skips:
        skipped.setdefault((skip["task"].partition("/")[0], skip["reason"]), set()).add(skip["ctx"])
    for (family, reason), ctxs in skipped.items():
        click.echo(f"skipped   {family} at {format_lengths(sorted(ctxs))}: {reason}")
    click.echo("assumed   answers use their whole budgets; starting, loading, making samples and retries take no time")
    rows: dict[str, list[str]] = {}
    for row in found.rows:
        name, ctx, batch = row.rsplit("/", 2)
        rows.setdefault(name, []).append(format_length(int(ctx)) + (f" x {batch}" if batch != "1" else ""))
    for name, lengths in rows.items():
        click.echo(f"rows      {name} at {', '.join(lengths)}")


def _time(found: RunPlan) -> str:
    if found.device_hours is None or found.wall_hours is None:
        return "not told: --hardware 8xh200 says what it would run on" if found.hardware is None else "nothing fits"
    wall = " to ".join(dict.fromkeys(duration(3600 * hours) for hours in found.wall_hours))
    on = f" on {plural(found.hardware.devices, 'device')}, models one after the other" if found.hardware else ""
    return f"{_span(found.device_hours)} device-hours, {wall}{on}{_without(found)}"


def _without(found: ModelPlan | RunPlan) -> str:
    return "; without what does not fit" if found.partial else ""


def _span(span: Span | tuple[float, ...]) -> str:
    low, high = (number(value) for value in span)
    return low if low == high else f"{low} to {high}"
