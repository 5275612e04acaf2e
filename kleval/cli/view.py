"""`kleval view DIR…`: the page of runs and profiles, served to this machine's browser, with prompts whole."""

from __future__ import annotations

import contextlib
from pathlib import Path

import click

from kleval.cli import options
from kleval.cli.console import note
from kleval.cli.runs import readable_runs


@click.command(short_help="Look at runs in a browser, prompts whole.")
@click.argument("directories", nargs=-1, required=True, metavar="DIR…", type=options.PLACE)
@options.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8735,
    metavar="N",
    help="Where it is served, on this machine alone; 0 takes any that is free.",
)
def view(directories: tuple[Path, ...], port: int) -> None:
    """Serve the page of the runs and profiles in the DIRs to this machine's browser, until Ctrl-C. It is the page of
    kleval report, and shows the whole of the prompts that the file has excerpts of."""
    from kleval.report.viewer import Viewer

    stores, unread = readable_runs(directories)
    with Viewer(stores, port, unread.append) as server, contextlib.suppress(KeyboardInterrupt):
        for text in unread:
            note(f"left out: {text}")
        click.echo(server.address)
        note("open it in a browser; Ctrl-C ends it")
        server.serve_forever()
