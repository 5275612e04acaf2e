"""`kleval export DIR… --format …`: stored runs in the formats of lm-eval, the Hugging Face hub and Every Eval Ever."""

from __future__ import annotations

from pathlib import Path

import click

from kleval.cli import options
from kleval.cli.runs import scored_runs

FORMATS = ("lm-eval", "hf", "every-eval-ever")


@click.command(short_help="Stored runs in the formats that others read.")
@click.argument("directories", nargs=-1, required=True, metavar="DIR…", type=options.PLACE)
@options.option(
    "--format", "kind", envvar="KLEVAL_EXPORT_FORMAT", required=True, type=click.Choice(FORMATS), help="What to write."
)
@options.option(
    "--out",
    envvar="KLEVAL_EXPORT_OUT",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Write below this directory.  [default: export/FORMAT in the first DIR]",
)
@options.option(
    "--dataset",
    "datasets",
    multiple=True,
    metavar="TASK=ORG/NAME[:TASK_ID]",
    help="Where the data of a task or family are on the Hugging Face hub, where kleval does not know; may be given again.",
)
def export(directories: tuple[Path, ...], kind: str, out: Path | None, datasets: tuple[str, ...]) -> None:
    """Write the scores of the runs in each DIR, and their samples, as others read them; print the files' names.

    \b
    lm-eval          results_*.json and samples_*.jsonl of lm-eval 0.4.13
    hf               .eval_results/*.yaml for a model's repository; official editions only
    every-eval-ever  data/…/*.json and *_samples.jsonl of its schema 0.3.0
    """
    from kleval.report.export import export as write
    from kleval.report.export import parse_dataset

    found = write(
        scored_runs(directories), kind, out or directories[0] / "export" / kind, dict(map(parse_dataset, datasets))
    )
    for path in found.paths:
        click.echo(path)
    for text in found.left_out:
        click.echo(f"left out: {text}", err=True)
