"""`kleval report DIR…`: one HTML page from the stored rows of runs and the points of profiles."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kleval.cli import options
from kleval.cli.console import note
from kleval.cli.runs import readable_runs, without_studies
from kleval.types import UsageError

if TYPE_CHECKING:
    from kleval.report.figure import Figure
    from kleval.report.own import OwnFigure
    from kleval.tables.frame import Loaded


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
@options.option(
    "--add-figure",
    envvar="KLEVAL_REPORT_ADD_FIGURE",
    multiple=True,
    metavar="FILE.py:NAME",
    help="Also draw what this function of your own makes of the tables; again for several.",
)
def report(
    directories: tuple[Path, ...], out: Path | None, figures: Path | None, trend: str, add_figure: tuple[str, ...]
) -> None:
    """Make one HTML page, readable without a network, of the runs and profiles in the DIRs:
    scores, what they cost, and both side by side; of trainings their curves.
    A DIR that cannot be read is named and the rest is shown."""
    from kleval.report.page import write_report

    own = [_own(target) for target in add_figure]
    rest, trained = without_studies(directories)
    stores, unread = readable_runs(rest)
    first = stores[0].path if len(stores) == 1 and stores[0].is_profile else directories[0]
    page = write_report(stores, out or first / "report.html", unread.append, figures, trend, trained, own)
    for text in unread:
        note(f"left out: {text}")
    click.echo(page)


def _own(target: str) -> OwnFigure:
    """The function in the user's file; its faults become one line."""
    from kleval.tasks.own.files import attribute, said

    found = attribute(target)
    if not callable(found):
        raise UsageError(f"{target} is no function: a figure is f(tables), which gives a kleval.report.figure.Figure")

    @functools.wraps(found)
    def drawn(tables: Loaded) -> Figure:
        try:
            figure: Figure = found(tables)
        except UsageError:
            raise
        except Exception as error:
            raise UsageError(f"{target} cannot be drawn: {said(error)}") from error
        return figure

    return drawn
