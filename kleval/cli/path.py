"""`kleval path`: where files that kleval has for other programs lie, for their options."""

from __future__ import annotations

import click

from kleval.cli.main import Suggesting


@click.group(cls=Suggesting, short_help="Print where files for other programs lie.")
def path() -> None:
    """Print a folder that kleval has for another program."""


@path.command("lm-eval", short_help="kleval's tasks for lm-eval.")
def lm_eval() -> None:
    """kleval's tasks for lm-eval: lm_eval run --include_path $(kleval path lm-eval) --tasks kleval_ruler …

    The folder is below ~/.cache/kleval/lm_eval; its files are written from the list of tasks where they are not there yet.
    """
    from kleval.tasks.lm_eval import include

    click.echo(include.folder())
