"""`kleval compact DIR…`: rows of finished runs put into Parquet files."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

import click

from kleval.cli import options
from kleval.cli.console import emit, note
from kleval.text import plural, size
from kleval.types import OK


@click.command(short_help="Put the rows of runs into a compact form, Parquet.")
@click.argument("directories", nargs=-1, required=True, metavar="DIR…", type=click.Path(path_type=Path))
@options.json_output
@options.quiet
def compact(directories: tuple[Path, ...], as_json: bool, quiet: bool) -> int:
    """Put the rows of each run, at or below each DIR, into one Parquet file per model, task and length, in the place of JSON lines.

    Every command reads both. A run that goes on writes lines beside them, and the next compact takes those in. The lines are
    removed when their file is on the disk and was read back as it was written: killed, the same command goes on. A remote
    address names one run.
    """
    from kleval.packages import need
    from kleval.store import RunStore
    from kleval.store.remote import uploading

    need("pyarrow", "data", "kleval compact")
    say = (lambda text: None) if quiet else note
    with ExitStack() as stack:
        places = [stack.enter_context(uploading(place, say=say)) for place in directories]
        for path in RunStore.find_named(places):
            with RunStore.reopen(path) as store:
                done = store.compact(lambda file: say(f"  {file}"))
            if as_json:
                emit("compacted", out=str(path), **asdict(done))
            if done.cells:
                took = f"{size(done.bytes_before)} -> {size(done.bytes_after)}"
                say(f"compacted {path}: {plural(done.rows, 'row')} in {plural(done.cells, 'file')}, {took}")
            else:
                say(f"{path} has no lines to put together")
    return OK
