"""`kleval merge DIR… --out DIR`: shards of a run joined into one directory."""

from __future__ import annotations

from pathlib import Path

import click

from kleval.cli import options
from kleval.cli.console import emit, note
from kleval.text import plural
from kleval.types import INCOMPLETE, OK


@click.command(short_help="Join the shards of a run.")
@click.argument("directories", nargs=-1, required=True, metavar="DIR…", type=click.Path(path_type=Path))
@options.uploading
@options.option(
    "--out",
    envvar="KLEVAL_MERGE_OUT",
    type=click.Path(path_type=Path),
    required=True,
    metavar="DIR",
    help="The directory of the whole run; one that was merged before gets what has come since.",
)
@options.json_output
@options.quiet
def merge(directories: tuple[Path, ...], out: Path, as_json: bool, quiet: bool) -> int:
    """Join the shards (kleval run --shard) at or below each DIR: rows, prompts and what is known of the run, as if it had been one.

    What does not belong together is refused. Where shards are missing or half done, the others are joined, and it is said which to
    run (exit code 3); the same merge then adds them, or the command without --shard goes on in --out.
    """
    from kleval.cli.shows import stored_show
    from kleval.cli.watch import write_files
    from kleval.harness.merging import merge as join
    from kleval.store import RunStore
    from kleval.store.remote import here

    done = join([*map(here, directories)], out, (lambda text: None) if quiet else note)
    store = RunStore.open(out)
    show = stored_show(store)
    if not as_json:
        show.print_results(store)
        click.echo()
    files = write_files(show, store) if done.counts["finished"] else {}
    code = INCOMPLETE if done.missing else OK
    if as_json:
        told = {name: str(path) for name, path in files.items()}
        emit(
            "done", exit_code=code, status=store.status, counts=done.counts, missing=done.missing, out=str(out), **told
        )
    if quiet and not done.missing:
        return code
    for line in done.missing:
        note(f"missing   {line}")
    counts = done.counts
    whole = f"{counts['answered']:,} of {plural(counts['planned'], 'answer')}"
    note(f"merged {plural(done.n_shards, 'shard')}, {whole}, {done.added:,} of them new")
    if done.missing:
        line = store.manifest["spec"]["command"]
        note("continue  the shards above and this merge again" + (f", or the rest as one: {line}" if line else ""))
    for name, path in {"rows": out, **files}.items():
        note(f"{name:<9} {path}")
    return code
