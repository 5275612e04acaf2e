"""`kleval train`: the nano family, made again."""

from __future__ import annotations

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


@train.command(short_help="Train nano models on this machine.")
@options.option(
    "--model",
    envvar="KLEVAL_TRAIN_MODEL",
    default="kimi-linear,kimi-linear-rope,gdn-h,mla",
    metavar="NAMES",
    help="Architectures, comma-separated, one after the other.",
)
@options.option(
    "--out",
    envvar="KLEVAL_TRAIN_OUT",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("runs/nano"),
    metavar="DIR",
    help="A folder per architecture goes here.",
)
@options.option(
    "--tokens",
    envvar="KLEVAL_TRAIN_TOKENS",
    type=click.IntRange(min=1),
    metavar="N",
    help="Token budget of each model.  [default: the recipe's]",
)
@options.option("--steps", type=click.IntRange(min=1), metavar="N", help="The same, in batches of the recipe's size.")
@options.option(
    "--seed",
    envvar="KLEVAL_TRAIN_SEED",
    type=int,
    metavar="N",
    help="Of data and weights.  [default: the recipe's]",
)
@options.device
@options.option("--threads", type=click.IntRange(min=1), metavar="N", help="CPU threads.  [default: torch's]")
@options.dry_run
def nano(
    model: str,
    out: Path,
    tokens: int | None,
    steps: int | None,
    seed: int | None,
    device: str,
    threads: int | None,
    dry_run: bool,
) -> None:
    """Train nano models. Interrupted and given again, the command continues from its last checkpoint."""
    from kleval.models.sizes import preset
    from kleval.train import recipe

    architectures = options.names(model)
    if not architectures:
        raise UsageError("--model names no architecture: write for example --model kimi-linear,mla")
    for architecture in architectures:
        preset(architecture, "nano")
    if steps is not None and tokens is not None:
        raise UsageError("--steps and --tokens are both the budget: give one of them")
    made = recipe.load(tokens=tokens, seed=seed)
    if steps is not None:
        made = recipe.load(tokens=steps * made.tokens_per_batch, seed=seed)
    for architecture in architectures:
        note(f"train {architecture}: {made.tokens:,} tokens, seed {made.seed}, into {out / architecture}")
    if dry_run:
        return
    from kleval.backends.devices import find_device
    from kleval.train.loop import Progress
    from kleval.train.nano import train_nano

    where = str(find_device(device))

    def show(at: Progress) -> None:
        scores = " ".join(f"{name} {value:.2f}" for name, value in at.accuracy.items())
        note(
            f"{at.name} step {at.step}, {at.tokens:,}/{at.budget:,} tokens, length {at.length}:"
            f" loss {at.loss:.3f} {scores} {at.tokens_per_second:,.0f} tokens/s, {duration(at.seconds_left)} to go"
        )

    for architecture in architectures:
        click.echo(train_nano(architecture, out, made, where, threads=threads or 0, on_progress=show))
