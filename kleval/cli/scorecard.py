"""`kleval scorecard DIR…`: claims of a paper beside what was measured here, with a verdict on each."""

from __future__ import annotations

from pathlib import Path

import click

from kleval.cli import options
from kleval.cli.profile_table import FORMATS, print_records, print_table
from kleval.cli.runs import open_runs
from kleval.types import UsageError


@click.command(short_help="Claims of a paper beside what was measured here.")
@click.argument("directories", nargs=-1, required=True, metavar="DIR…", type=options.PLACE)
@options.option(
    "--claims",
    "file",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Claims of another paper, as TOML.  [default: the Kimi Linear paper's]",
)
@options.option("--format", "kind", type=click.Choice(FORMATS), default="table", help="What is written on stdout.")
def scorecard(directories: tuple[Path, ...], file: Path | None, kind: str) -> None:
    """Put every quantitative claim of a paper beside what the runs and profiles in each DIR measured: the published value, the value
    here with its 95 % interval and n, their ratio, what differs, and a verdict. Intervals decide, never single values."""
    from kleval.tables.claims import load_claims
    from kleval.tables.costs import read_profile
    from kleval.tables.scorecard import BEHIND, HEADS, spelled
    from kleval.tables.scorecard import scorecard as compared
    from kleval.tables.scores import collect

    claims, stores = load_claims(file), open_runs(directories)
    runs = [store for store in stores if store.is_run]
    profiles = [read_profile(store) for store in stores if store.is_profile]
    rows = compared(claims, collect(runs) if runs else [], profiles, kind not in ("table", "md"))
    if all(row["value"] is None for row in rows):
        where = ", ".join(map(str, directories))
        raise UsageError(f"nothing in {where} measures a claim of {claims.title}: see docs/scorecard.md for what does")
    if kind not in ("table", "md"):
        print_records(rows, kind)
        return
    lines = [(str(i), *spelled(row)) for i, row in enumerate(rows, 1)]
    cut = len(HEADS) + 1
    print_table(["#", *HEADS], [line[:cut] for line in lines], kind, claims.title)
    behind = [(line[0], *line[cut:]) for line in lines if any(line[cut:])]
    print_table(["#", *BEHIND], behind, kind, "Where it was measured, and why the verdict")
    for note in claims.notes:
        click.echo(f"{note.title}. {note.text}" + ("\n" if kind == "md" else ""))
