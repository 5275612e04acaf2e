"""`kleval data`: the files that official editions read — fetch them, check them, list them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kleval.cli import complete, options
from kleval.cli.console import emit, note, table
from kleval.cli.main import Suggesting
from kleval.text import size
from kleval.types import INCOMPLETE, OK

if TYPE_CHECKING:
    from kleval.tasks.data import Status

_RECORD = ("name", "state", "size_bytes", "sha256", "revision", "licence", "needed_for", "path", "url")


@click.group(cls=Suggesting, short_help="Fetch, verify or list the official data files.")
def data() -> None:
    """The files that official editions read. Builtin editions need none."""


@data.command(short_help="Download what is missing.")
@click.argument("family", shell_complete=complete.data)
@options.data_dir
@options.offline
@options.json_output
@options.dry_run
@options.quiet
def fetch(family: str, data_dir: Path | None, as_json: bool, dry_run: bool, quiet: bool) -> int:
    """Download the files of a task or FAMILY that are missing, from their official addresses, hashes checked."""
    from kleval.tasks import data as assets

    if dry_run:
        _show([status for status in assets.verify(family, data_dir) if not status.good], as_json)
        return 0
    said: dict[str, int] = {}

    def progress(name: str, so_far: int, total: int | None) -> None:
        tenths = 10 * so_far // total if total else so_far // (16 << 20)
        if not quiet and tenths > said.get(name, -1):
            said[name] = tenths
            note(f"{name}: {size(so_far)}{f' of {size(total)}' if total else ''}")

    return _show(assets.fetch(family, data_dir, progress=progress), as_json)


@data.command(short_help="Check the files that are there.")
@click.argument("family", shell_complete=complete.data)
@options.data_dir
@options.json_output
def verify(family: str, data_dir: Path | None, as_json: bool) -> int:
    """Hash every file of a task or FAMILY. Exit code 3 when one is missing or is not what is pinned."""
    from kleval.tasks import data as assets

    return _show(assets.verify(family, data_dir), as_json)


@data.command("ls", short_help="List the files, their state, licence and source.")
@click.argument("family", required=False, shell_complete=complete.data)
@options.data_dir
@options.json_output
def ls_command(family: str | None, data_dir: Path | None, as_json: bool) -> None:
    """List the files of a task or FAMILY, or of all that have some."""
    from kleval.tasks.assets import ASSETS
    from kleval.tasks.data import verify

    for name in [family] if family else ASSETS:
        _show(verify(name, data_dir), as_json)


def _show(files: Sequence[Status], as_json: bool) -> int:
    """Print the files; exit code 3 when one of them is missing, or is not what is pinned."""
    if as_json:
        for status in files:
            emit("file", **{name: getattr(status, name) for name in _RECORD} | {"path": str(status.path)})
    elif files:
        header = ("file", "state", "size", "licence", "needed for")
        table(header, [(s.name, s.state, size(s.size_bytes), s.licence, s.needed_for) for s in files])
    return OK if all(status.good for status in files) else INCOMPLETE
