"""`kleval leaderboard DIR…`: one row per model, task, length and metric, in any of five formats, with what the length costs."""

from __future__ import annotations

from pathlib import Path

import click

from kleval.cli import options
from kleval.cli.runs import open_runs, scored_runs
from kleval.files import write_bytes, write_text
from kleval.tables import formats
from kleval.types import UsageError


@click.command(short_help="Scores of stored runs as CSV, markdown, JSON, Parquet or HTML, with what they cost.")
@click.argument("directories", nargs=-1, required=True, metavar="DIR…", type=options.PLACE)
@options.option(
    "--out",
    envvar="KLEVAL_LEADERBOARD_OUT",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write here.  [default: stdout]",
)
@options.option(
    "--format",
    "kind",
    type=click.Choice(formats.FORMATS),
    help="csv, md, json, jsonl, parquet or html (sorts and filters).  [default: by --out's ending, else csv]",
)
@options.option(
    "--append",
    envvar="KLEVAL_LEADERBOARD_APPEND",
    is_flag=True,
    help="Put the runs into --out, a CSV or JSON file that is there already: each run once, several writers at a time.",
)
def leaderboard(directories: tuple[Path, ...], out: Path | None, kind: str | None, append: bool) -> None:
    """Write one row per model, task, length and metric of the runs in each DIR. Where a DIR is a profile, what it measured of the
    same model at the same length stands in the row; cost_of says whose cost it is."""
    from kleval.tables.leaderboard import columns_of, to_markdown, to_rows

    named = open_runs([directory for directory in directories if (directory / "run.json").is_file()])
    rows = to_rows(scored_runs(directories), [store for store in named if store.is_profile])
    kind = kind or (formats.ENDINGS.get(out.suffix, "csv") if out is not None else "csv")
    if append:
        from kleval.tables import growing

        if out is None:
            raise UsageError("--append goes on with a file: give it with --out FILE")
        growing.append(out, rows, columns_of(rows), kind)
        click.echo(out)
        return
    if kind == "parquet":
        if out is None:
            raise UsageError("Parquet is no text: give a file with --out FILE")
        click.echo(write_bytes(out, formats.to_parquet(rows, columns_of(rows))))
        return
    if kind == "html":
        from kleval.report.board_page import board

        text = board(rows)
    else:
        text = to_markdown(rows) if kind == "md" else formats.COMPLETE[kind](rows, columns_of(rows))
    if out is None:
        click.echo(text, nl=False)
    else:
        click.echo(write_text(out, text))
