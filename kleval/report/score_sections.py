"""The scores' part of the page: averages, columns, heat maps, curves, differences, failures, the table and samples of runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kleval.report import absences, contrasts, examples, figures, header, views
from kleval.report.parts import Part
from kleval.store import RunStore
from kleval.tables.cells import Cell
from kleval.tables.columns import COLUMNS, PAPER, column_rows
from kleval.tables.intervals import BCA_MINIMUM
from kleval.tables.scores import Entrant, collect, column_tasks
from kleval.text import format_length, limits, plural, score

MAX_FAILURES = 20  # distinct messages on the page; the rows hold all

METHOD_TEXTS = {
    "wilson": ", where every value is 0 or 1: Wilson's score interval.",
    "bca": ", for fractional values: bias-corrected and accelerated bootstrap (Efron 1987), seeded.",
    "wilson-fractional": f", for fractional values that are fewer than {BCA_MINIMUM} or all the same: Wilson's formula, "
    "which is wider than needed.",
}
METRIC_TEXTS = {
    "string_match_all": " is the share of the expected strings that occur in the answer, upper and lower case alike.",
    "string_match_part": " is 1 if any of the expected strings occurs in the answer, upper and lower case alike, else 0.",
    "empty": " is the share of empty answers: lower is better.",
}


def scores_part(runs: Sequence[RunStore]) -> tuple[Part, list[Entrant]]:
    """What the page says of runs, and their models. UsageError when no run holds an answer or a skip."""
    picker = examples.Picker()
    entrants = collect(runs, picker.watch)
    shown, left_out = picker.pick(entrants)
    return _part(entrants, shown, left_out), entrants


def _part(entrants: Sequence[Entrant], shown: Sequence[examples.Example], left_out: int) -> Part:
    """shown: the answers to look at; left_out: how many more would have been shown."""
    shape = views.Shape.of(entrants)
    averages = {
        f: (f"fig-average-{i}", views.average_rows(entrants, f, shape.ctxs)) for i, f in enumerate(shape.families)
    }
    panels = [(f"fig-task-{i}", task, shape.name(task)) for i, task in enumerate(shape.tasks)]
    drawn = {div: figures.average_figure(entrants, family, shape.ctxs) for family, (div, _) in averages.items()}
    drawn |= {div: figures.task_figure(entrants, task, shape.ctxs) for div, task, _ in panels}
    heat = [(entrant, views.heat_rows(entrant, shape)) for entrant in entrants]
    editions = list(dict.fromkeys(cell.edition for e in entrants for cell in e.cells.values()))
    sheets = header.run_sheets(entrants)
    return Part.rendered(
        "scores.html.j2",
        drawn,
        names=tuple(dict.fromkeys(e.model for e in entrants)),
        sources=tuple(sheet.run.id for sheet in sheets),
        scores=True,
        coverage=_coverage,
        length=format_length,
        limits=limits,
        score=score,
        entrants=entrants,
        looks=figures.looks(entrants),
        shape=shape,
        tiles=header.tiles(entrants, shape),
        notices=header.notices(entrants, shape),
        sheets=sheets,
        models=[(entrant, header.model_facts(entrant)) for entrant in entrants],
        data=header.data_rows(entrants, shape),
        averages=averages,
        panels=panels,
        heat=heat,
        marks=_marks(drawn, [cell for _, rows in heat for row in rows for cell in row.cells]),
        columns=list(COLUMNS),
        column_rows=[(e, rows) for e in entrants if (rows := column_rows([*e.cells.values(), *e.averages.values()]))],
        paper=PAPER,
        diffs=contrasts.diff_tables(entrants, shape),
        failures=absences.failure_rows(entrants),
        max_failures=MAX_FAILURES,
        skips=absences.skip_rows(entrants),
        table=views.table_rows(entrants, shape),
        any_broken=any(cell.broken for e in entrants for cell in e.cells.values()),
        examples=_by_task(shown, shape),
        examples_left_out=left_out,
        verdicts=[v for v in examples.VERDICTS if any(example.verdict == v for example in shown)],
        method_texts=METHOD_TEXTS,
        metric_texts=METRIC_TEXTS,
        methods=sorted({cell.ci_method for e in entrants for cell in e.cells.values()}),
        metrics=sorted(
            {cell.metric for e in entrants for cell in e.cells.values()}
            | {cell.metric for e in entrants for cell in e.others if cell.metric in METRIC_TEXTS}
        ),
        edition_text="" if editions == ["official"] else f"{' and '.join(editions)} edition",
    )


def _coverage(cell: Cell) -> str:
    """`9 of 13 tasks` for a column that does not cover its family, else the empty text."""
    n, expected = column_tasks(cell)
    return f"{n} of {plural(expected, 'task')}" if n < expected else ""


def _marks(drawn: Mapping[str, Any], cells: Sequence[views.HeatCell]) -> set[str]:
    """What occurs on the page and so needs a word in a key."""
    marks = {cell.kind for cell in cells} | {"partial" for cell in cells if cell.note}
    lines = [trace for div, figure in drawn.items() if "average" in div for trace in figure["data"]]
    return marks | {"whiskers" for trace in lines if trace.get("error_y", {}).get("visible")}


def _by_task(shown: Sequence[examples.Example], shape: views.Shape) -> list[tuple[str, list[examples.Example]]]:
    by_task = [(task, [example for example in shown if example.task == task]) for task in shape.tasks]
    return [(task, found) for task, found in by_task if found]
