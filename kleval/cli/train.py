"""`kleval train nano`: make the shipped nano weights again."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click

from kleval.cli import options
from kleval.cli.console import note
from kleval.cli.main import Suggesting
from kleval.text import duration
from kleval.types import UsageError


@click.group(cls=Suggesting, short_help="Train the shipped nano models.")
def train() -> None:
    """Train the models that kleval ships."""


@train.command(short_help="Train nano models on this machine's CPU.")
@options.option(
    "--model",
    envvar="KLEVAL_TRAIN_MODEL",
    default="kimi-linear,mla",
    metavar="NAMES",
    help="Architectures, comma-separated, one after the other.",
)
@options.option(
    "--out",
    envvar="KLEVAL_TRAIN_OUT",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("runs/nano"),
    metavar="DIR",
    help="A folder per architecture, and the tokenizer, go here.",
)
@options.option(
    "--tokens",
    envvar="KLEVAL_TRAIN_TOKENS",
    type=click.IntRange(min=1),
    metavar="N",
    help="Token budget of each model.  [default: the recipe's]",
)
@options.option(
    "--seed",
    envvar="KLEVAL_TRAIN_SEED",
    type=int,
    metavar="N",
    help="Of data and weights.  [default: the recipe's]",
)
@options.option("--threads", type=click.IntRange(min=1), metavar="N", help="CPU threads.  [default: torch's]")
@options.dry_run
def nano(model: str, out: Path, tokens: int | None, seed: int | None, threads: int | None, dry_run: bool) -> None:
    """Train nano models. Interrupted and given again, the command continues from its last checkpoint."""
    from kleval.models.sizes import preset
    from kleval.train.nano import Progress, Recipe, train_nano

    architectures = options.names(model)
    if not architectures:
        raise UsageError("--model names no architecture: write for example --model kimi-linear,mla")
    for architecture in architectures:
        preset(architecture, "nano")
    recipe = Recipe()
    recipe = replace(recipe, tokens=tokens or recipe.tokens, seed=recipe.seed if seed is None else seed)
    for architecture in architectures:
        note(f"train {architecture}: {recipe.tokens:,} tokens, seed {recipe.seed}, into {out / architecture}")
    if dry_run:
        return

    def show(at: Progress) -> None:
        left = (at.budget_tokens - at.tokens) / at.tokens_per_second if at.tokens_per_second else 0.0
        scores = " ".join(f"{name} {value:.2f}" for name, value in at.accuracy.items())
        note(
            f"{at.model} step {at.step}, {at.tokens:,}/{at.budget_tokens:,} tokens, length {at.length}:"
            f" loss {at.loss:.3f} {scores} {at.tokens_per_second:,.0f} tokens/s, {duration(left)} to go"
        )

    for architecture in architectures:
        click.echo(train_nano(architecture, out, recipe, threads=threads or 0, on_progress=show))
