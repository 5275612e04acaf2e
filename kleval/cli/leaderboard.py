"""`kleval leaderboard DIR…`: one row per model, task, length and metric, as CSV or a markdown table."""

from __future__ import annotations

from pathlib import Path

import click

from kleval.cli import options
from kleval.cli.runs import scored_runs


@click.command(short_help="Scores of stored runs as CSV or markdown.")
@click.argument("directories", nargs=-1, required=True, metavar="DIR…", type=click.Path(path_type=Path))
@options.option(
    "--out",
    envvar="KLEVAL_LEADERBOARD_OUT",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write here.  [default: stdout]",
)
@options.option(
    "--format", "kind", type=click.Choice(["csv", "md"]), help="csv or md.  [default: by --out's ending, else csv]"
)
def leaderboard(directories: tuple[Path, ...], out: Path | None, kind: str | None) -> None:
    """Write one row per model, task, length and metric of the runs in each DIR."""
    from kleval.tables.leaderboard import to_csv, to_markdown, to_rows, write_text

    rows = to_rows(scored_runs(directories))
    kind = kind or ("md" if out is not None and out.suffix == ".md" else "csv")
    text = to_markdown(rows) if kind == "md" else to_csv(rows)
    if out is None:
        click.echo(text, nl=False)
    else:
        click.echo(write_text(out, text))
