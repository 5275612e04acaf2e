"""The table at the end of a run: per model, tasks down and lengths across, each cell a score with its 95 % interval."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from kleval.cli.console import table
from kleval.text import few, format_length, plural, score

if TYPE_CHECKING:
    from kleval.store import RunStore
    from kleval.tables.cells import Cell

MOST_TASKS = 4  # named in a line


def print_run(store: RunStore, all_metrics: bool = False) -> None:
    """`print_scores` of a stored run, its tasks in the order in which they were planned."""
    from kleval.tables.area import come_again
    from kleval.tables.bins import means_of_bins
    from kleval.tables.cells import cells_of, families, grouped
    from kleval.tables.positions import positions

    manifest = store.manifest
    rank = {task: place for place, task in enumerate(manifest.get("tasks", ()))}
    groups = grouped(store.rows(), manifest.get("skips", ()))
    cells = cells_of(groups)
    cells += means_of_bins(cells)
    again = come_again((f"{model} {task}", group.prompts) for (model, task, *_), group in groups.items())
    in_order = sorted(cells, key=lambda cell: rank.get(cell.task, len(rank)))
    print_scores(in_order, families(cells, manifest.get("spec", {}).get("groups") or {}), all_metrics, again)
    print_positions(positions(store.rows()))


def print_scores(
    cells: Sequence[Cell], means: Sequence[Cell], all_metrics: bool = False, again: Collection[str] = ()
) -> None:
    """Print one table per model and edition, and what follows from it. means: the families' cells, set below their tasks.

    all_metrics: further metrics too, below their task's main one. again: `model task` whose prompts come again at several lengths.
    """
    from kleval.tables import bins
    from kleval.tables.area import area_of_all
    from kleval.tables.ruler import in_words

    groups: dict[tuple[str, str, str], list[Cell]] = {}
    for cell in cells if all_metrics else [cell for cell in cells if cell.headline]:
        groups.setdefault((cell.model, cell.edition, cell.unit), []).append(cell)
    for (model, edition, unit), group in groups.items():
        below = [cell for cell in means if (cell.model, cell.edition, cell.unit) == (model, edition, unit)]
        protocols = {cell.protocol for cell in group}
        protocol = f"protocol {protocols.pop()}" if len(protocols) == 1 else ""
        parts = [f"{_what(unit)} [95 % interval]", f"{edition} edition", protocol, _n(group)]
        click.echo(f"\n{model}: {', '.join(part for part in parts if part)}")
        _print_group(group, below, with_protocol=not protocol)
        if not unit and (summary := in_words(below)):
            click.echo(f"RULER: {summary}")
        for line in bins.in_words(cell for cell in cells if (cell.model, cell.edition) == (model, edition)):
            click.echo(line)
        repeated = [name.partition(" ")[2] for name in again if name.startswith(f"{model} ")]
        if found := area_of_all((cell for cell in group if cell.headline), repeated):
            of, tasks = found
            what, over = "gain" if unit else "score", f"{plural(len(tasks), 'task')} scored at every length"
            value = _spelled(of.value, of.low, of.high, unit)
            click.echo(f"area under {what} against log length, {over}: {value} over {of.span}")
        if not unit:
            _print_columns(model, edition, [*(cell for cell in group if cell.headline), *below])


def _what(unit: str) -> str:
    return f"gain from the context, {unit}" if unit else "score × 100"


def _spelled(value: float, low: float, high: float, unit: str) -> str:
    """A value with its interval."""
    if unit:
        return f"{score(value, unit):>6} [{score(low, unit)}, {score(high, unit)}]"
    return f"{100 * value:.1f} [{100 * low:.0f}, {100 * high:.0f}]"


def print_positions(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print the likelihood of texts by position, a table per model."""
    from kleval.tables.positions import HEADS, spelled

    for model in dict.fromkeys(row["model"] for row in rows):
        click.echo(f"\n{model}: negative log-likelihood by position, nats per token, intervals over documents")
        table(HEADS, [spelled(row) for row in rows if row["model"] == model])


def _print_columns(model: str, edition: str, cells: Sequence[Cell]) -> None:
    from kleval.tables.columns import COLUMNS, column_rows

    rows = column_rows(cells)
    if not rows:
        return
    click.echo(f"\n{model}: the columns of the Kimi Linear paper's Table 5, {edition} edition, score × 100")
    shown = [
        [
            format_length(ctx),
            *("-" if c is None else f"{100 * c.value:.1f}{_covered(c)}" for c in row),
            "-" if of is None else f"{100 * of.mean:.1f} [{100 * of.low:.0f}, {100 * of.high:.0f}]",
        ]
        for ctx, (row, of) in rows.items()
    ]
    table(["ctx", *COLUMNS, "average"], shown, lead=1)


def _print_group(group: Sequence[Cell], below: Sequence[Cell], with_protocol: bool) -> None:
    lengths = sorted({cell.ctx for cell in group})
    same = _n(group) != ""
    kinds = dict.fromkeys((cell.task, "" if cell.headline else cell.metric) for cell in group)
    rows = [_row(task, group, lengths, same, metric) for task, metric in kinds]
    rows += [_row(task, below, lengths, True) for task in dict.fromkeys(cell.task for cell in below)]
    header = ["task", *(f"{format_length(length):>5}" for length in lengths), "failed", "skipped", "protocol"]
    # A column that says nothing is left out; one that says something must be seen.
    nothing = {"failed": "0", "skipped": "0", "protocol": "" if with_protocol else None}
    keep = [
        i
        for i, name in enumerate(header)
        if name not in nothing or any(nothing[name] not in (row[i], None) for row in rows)
    ]
    table([header[i] for i in keep], [[row[i] for i in keep] for row in rows], lead=1)
    if all(row[len(lengths) + 1] == "0" for row in rows):
        click.echo("no failures")
    main = [cell for cell in group if cell.headline]
    for line in [*degenerate_lines(main), *broken_lines(main, below)]:
        click.echo(line)
    lost = sorted({cell.task for cell in main if cell.unit and cell.n_failed})
    if lost:
        click.echo(f"failures leave the mean, and nothing bounds what they might have been: {few(lost)}")
    if any(_bounds(cell) for cell in [*main, *below]):
        click.echo("{low, high}: the score with every failure wrong, and with every failure right")


def degenerate_lines(group: Sequence[Cell]) -> list[str]:
    """Per length, the tasks whose every answer is a loop to its end, as of an engine at fault or of a model far below the task."""
    lines = []
    for ctx in sorted({cell.ctx for cell in group if cell.degenerate}):
        tasks = [cell.task for cell in group if cell.ctx == ctx and cell.degenerate]
        more = f" and {len(tasks) - MOST_TASKS} others" if len(tasks) > MOST_TASKS else ""
        lines.append(
            f"{format_length(ctx)}: every answer of {', '.join(tasks[:MOST_TASKS])}{more} repeats itself to the end: a fault of the "
            "engine (dtype, kernels, chat template), or a task far beyond the model"
        )
    return lines


def broken_lines(group: Sequence[Cell], below: Sequence[Cell]) -> list[str]:
    """Per length with any, how many answers were cut, empty or looping, and the score over the others."""
    lines = []
    for ctx in sorted({cell.ctx for cell in group}):
        here = [cell for cell in group if cell.ctx == ctx]
        texts = sum(cell.n_texts for cell in here)
        names = {"n_cut": "cut by the budget", "n_empty": "empty", "n_looped": "looping to the end"}
        names["n_reasoning_cut"] = "without an answer behind their reasoning"
        counts = {what: sum(getattr(cell, name) for cell in here) for name, what in names.items()}
        said = [f"{n} {what} ({n / texts:.0%})" for what, n in counts.items() if n]
        if not said:
            continue
        # Averages where there are any, else the few tasks that lose answers by it.
        shown = [cell for cell in below if cell.ctx == ctx and cell.broken] or [c for c in here if c.broken][
            :MOST_TASKS
        ]
        whole = ", ".join(
            f"{cell.task} {'-' if math.isnan(cell.value_completed) else f'{100 * cell.value_completed:.1f}'} "
            f"(n={cell.n_completed})"
            for cell in shown
        )
        lines.append(f"{format_length(ctx)}: of {texts} answers {', '.join(said)}; over completed answers: {whole}")
    return lines


def _row(task: str, cells: Sequence[Cell], lengths: Sequence[int], same: bool, metric: str = "") -> list[str]:
    """metric: a further one, "" for the main one."""
    from kleval.tables.cells import FAMILY_METRIC

    here = {c.ctx: c for c in cells if c.task == task and (c.metric == metric if metric else c.headline)}
    failed = sum(cell.n_failed for cell in here.values())
    skipped = sum(cell.n_skipped for cell in here.values())
    name = f"average of {task}" if any(cell.metric == FAMILY_METRIC for cell in here.values()) else task
    name = f"  {metric}" if metric else name
    few = {_coverage(cell) for cell in here.values() if cell.n_total}
    everywhere = few.pop() if len(few) == 1 else ""
    protocol = ", ".join(dict.fromkeys(cell.protocol for cell in here.values()))
    shown = [_score(here.get(length), same).removesuffix(everywhere or " ") for length in lengths]
    return [name + everywhere, *shown, str(failed), str(skipped), protocol]


def _score(cell: Cell | None, same: bool) -> str:
    if cell is None:
        return "-"
    if math.isnan(cell.value):
        return "skipped" if cell.n_skipped else "no answer"
    text = _spelled(cell.value, cell.ci_low, cell.ci_high, cell.unit)
    text = text if cell.unit else text.rjust(len(text) + max(0, 5 - text.index(" ")))
    if not same:
        text += f" n={cell.n_samples}"
    return text + _bounds(cell) + _coverage(cell)


def _bounds(cell: Cell) -> str:
    """` {25, 75}`: what the failures could make of a score; nothing where there are none."""
    if not cell.n_failed or any(map(math.isnan, (cell.value, cell.bound_low, cell.bound_high))):
        return ""
    return f" {{{100 * cell.bound_low:.0f}, {100 * cell.bound_high:.0f}}}"


def _covered(cell: Cell) -> str:
    """` (12/13)` for a column that is not over its whole family."""
    from kleval.tables.scores import column_tasks

    n, expected = column_tasks(cell)
    return f" ({n}/{expected})" if n < expected else ""


def _coverage(cell: Cell) -> str:
    """What an average leaves out of its family; nothing for whole families and single tasks."""
    from kleval.tables.cells import FAMILY_METRIC
    from kleval.tables.scores import expected_tasks

    expected = expected_tasks(cell.task, cell) if cell.metric == FAMILY_METRIC else cell.n_tasks
    return f" ({cell.n_tasks} of {expected} tasks)" if cell.n_tasks < expected else ""


def _n(group: Sequence[Cell]) -> str:
    """`n = 10 each`, or nothing when the cells differ."""
    counts = {cell.n_samples for cell in group if cell.n_total and cell.headline}
    return f"n = {counts.pop()} each" if len(counts) == 1 else ""
