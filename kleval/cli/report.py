"""`kleval report DIR…`: one HTML page from the stored rows of one or several runs."""

from __future__ import annotations

from pathlib import Path

import click

from kleval.cli import options
from kleval.cli.runs import open_runs


@click.command(short_help="Make an HTML report of stored runs.")
@click.argument("directories", nargs=-1, required=True, metavar="DIR…", type=click.Path(path_type=Path))
@options.option(
    "--out",
    envvar="KLEVAL_REPORT_OUT",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The page.  [default: report.html in the first DIR]",
)
def report(directories: tuple[Path, ...], out: Path | None) -> None:
    """Make one HTML page, readable without a network, of the runs in each DIR."""
    from kleval.report.build import write_report

    path = write_report(open_runs(directories), out or directories[0] / "report.html")
    click.echo(path)
