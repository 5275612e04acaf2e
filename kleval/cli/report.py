"""`kleval report DIR…`: one HTML page from the stored rows of runs and the points of profiles."""

from __future__ import annotations

from pathlib import Path

import click

from kleval.cli import options
from kleval.cli.console import note
from kleval.cli.runs import readable_runs, without_studies


@click.command(short_help="Make an HTML report of stored runs.")
@click.argument("directories", nargs=-1, required=True, metavar="DIR…", type=options.PLACE)
@options.option(
    "--out",
    envvar="KLEVAL_REPORT_OUT",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="The page.  [default: report.html in the first DIR]",
)
@options.option(
    "--figures",
    envvar="KLEVAL_REPORT_FIGURES",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Also write every figure here as SVG and PNG, without a browser.",
)
@options.option(
    "--trend",
    envvar="KLEVAL_REPORT_TREND",
    default="auto",
    metavar="auto|off|date|TAG",
    help="What scores of many runs of a model are shown over; auto: the date, and tags that runs share, from 8 runs on.",
)
def report(directories: tuple[Path, ...], out: Path | None, figures: Path | None, trend: str) -> None:
    """Make one HTML page, readable without a network, of the runs and profiles in the DIRs:
    scores, what they cost, and both side by side; of trainings their curves.
    A DIR that cannot be read is named and the rest is shown."""
    from kleval.report.page import write_report

    rest, trained = without_studies(directories)
    stores, unread = readable_runs(rest)
    first = stores[0].path if len(stores) == 1 and stores[0].is_profile else directories[0]
    page = write_report(stores, out or first / "report.html", unread.append, figures, trend, trained)
    for text in unread:
        note(f"left out: {text}")
    click.echo(page)
