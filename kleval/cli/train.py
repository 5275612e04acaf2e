"""`kleval train`: the nano family, and the paper's synthetic tests, ablations and scaling study at a small scale."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kleval.cli import options
from kleval.cli.console import note
from kleval.cli.main import Suggesting
from kleval.text import duration
from kleval.types import UsageError

if TYPE_CHECKING:
    from kleval.train.loop import Progress
    from kleval.train.studies import Rung


@click.group(cls=Suggesting, short_help="Train the nano models and the paper's small studies.")
def train() -> None:
    """Train the models that kleval ships, and the paper's synthetic tests, ablations and scaling study."""


def _show(at: Progress) -> None:
    scores = " ".join(f"{name} {value:.2f}" for name, value in at.accuracy.items())
    note(
        f"{at.name} step {at.step}, {at.tokens:,}/{at.budget:,} tokens, length {at.length}:"
        f" loss {at.loss:.3f} {scores} {at.tokens_per_second:,.0f} tokens/s, {duration(at.seconds_left)} to go"
    )


threads_option = options.option(
    "--threads", type=click.IntRange(min=1), metavar="N", help="CPU threads.  [default: torch's]"
)


def _out(default: str, help: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    kind = click.Path(path_type=Path, file_okay=False)
    return options.option(
        "--out", envvar="KLEVAL_TRAIN_OUT", type=kind, default=Path(default), metavar="DIR", help=help
    )


@train.command(short_help="Train nano models on this machine.")
@options.option(
    "--model",
    envvar="KLEVAL_TRAIN_MODEL",
    default="kimi-linear,kimi-linear-rope,gdn-h,mla",
    metavar="NAMES",
    help="Architectures, comma-separated, one after the other.",
)
@_out("runs/nano", "A folder per architecture goes here.")
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
    type=click.IntRange(0, 2**63 - 1),
    metavar="N",
    help="Of data and weights.  [default: the recipe's]",
)
@options.device
@threads_option
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
    from kleval.train.nano import train_nano

    where = str(find_device(device))

    for architecture in architectures:
        click.echo(train_nano(architecture, out, made, where, threads=threads or 0, on_progress=_show))


@train.command(short_help="Palindrome, MQAR and Stack, as the paper's Figure 4.")
@options.option("--task", default="palindrome,mqar,stack", metavar="NAMES", help="Tests, comma-separated.")
@options.option(
    "--model",
    envvar="KLEVAL_TRAIN_SYNTHETIC_MODEL",
    default="kda,gdn,mla",
    metavar="NAMES",
    help="Mixers: kda, gdn, mla, mamba2-decay.",
)
@options.option("--preset", type=click.Choice(["paper", "quick"]), default="quick", help="The paper's, or of minutes.")
@options.option("--length", default="", metavar="LIST", help="Training lengths, like 256,512.  [default: the preset's]")
@options.option("--lr", default="", metavar="LIST", help="Learning rates, the best counts.  [default: the preset's]")
@options.option("--steps", type=click.IntRange(min=1), metavar="N", help="At most.  [default: the preset's]")
@_out("runs/synthetic", "results.jsonl, and a folder per training, go here.")
@options.device
@threads_option
@options.dry_run
def synthetic(
    task: str,
    model: str,
    preset: str,
    length: str,
    lr: str,
    steps: int | None,
    out: Path,
    device: str,
    threads: int | None,
    dry_run: bool,
) -> None:
    """Train two layers of a mixer on a synthetic test, per length and learning rate; what is done already is not done again."""
    from kleval.cli.trainings import print_tests
    from kleval.train import synthetic as tests

    lengths, rates = _numbers("--length", length, int), _numbers("--lr", lr, float)
    changed = {} if steps is None else {"steps": steps}
    asked = tests.settings(preset, options.names(task), options.names(model), lengths, rates, **changed)
    for setting in asked:
        note(f"train {setting.name}: at most {setting.steps:,} steps of {setting.rows} x {setting.length}")
    if dry_run:
        return
    from kleval.backends.devices import find_device

    where = str(find_device(device))
    rows = [tests.train_synthetic(setting, out, where, threads or 0, _show) for setting in asked]
    print_tests(rows)


def _numbers(option: str, text: str, kind: Callable[[str], Any]) -> list[Any]:
    try:
        found = [kind(part) for part in options.names(text)]
    except ValueError:
        found = [0]
    if not all(0 < number < math.inf for number in found):
        raise UsageError(f"{option} {text!r}: give positive numbers, comma-separated")
    return found


@train.command(short_help="Ratios, gates, convolution and RoPE, as the paper's Table 1.")
@options.option("--variant", default="", metavar="NAMES", help="Some of them, like 3:1,swish gate.  [default: all]")
@options.option(
    "--steps", type=click.IntRange(min=1), metavar="N", help="Of each.  [default: half the recipe's budget]"
)
@_out("runs/ablation", "results.jsonl, and a folder per training, go here.")
@options.device
@threads_option
@options.dry_run
def ablation(variant: str, steps: int | None, out: Path, device: str, threads: int | None, dry_run: bool) -> None:
    """Train kimi-linear with one thing changed at a time, under one budget."""
    from kleval.train import recipe, studies

    made = recipe.load()
    if steps is not None:
        made = recipe.load(tokens=2 * steps * made.tokens_per_batch)
    _study(studies.ablation(made, options.names(variant)), out, device, threads, dry_run)


@train.command(short_help="Four sizes of two architectures, as the paper's Figure 5.")
@options.option("--tokens", type=click.IntRange(min=1), metavar="N", help="At width 128.  [default: the recipe's]")
@_out("runs/ladder", "results.jsonl, and a folder per training, go here.")
@options.device
@threads_option
@options.dry_run
def ladder(tokens: int | None, out: Path, device: str, threads: int | None, dry_run: bool) -> None:
    """Train four sizes of kimi-linear and mla and fit loss against compute."""
    from kleval.train import recipe, studies

    rows = _study(studies.ladder(recipe.load(tokens=tokens)), out, device, threads, dry_run)
    for line in studies.fits(rows):
        click.echo(line)


def _study(rungs: list[Rung], out: Path, device: str, threads: int | None, dry_run: bool) -> list[dict[str, Any]]:
    """The trainings of a study, one after the other, and their table; none where it is a dry run."""
    for rung in rungs:
        note(f"train {rung.name}: {rung.made.tokens:,} tokens, into {out}")
    if dry_run:
        return []
    import torch

    from kleval.backends.devices import find_device
    from kleval.cli.trainings import print_losses
    from kleval.train.studies import train_rung

    where = str(find_device(device))
    if threads:
        torch.set_num_threads(threads)
    rows = [train_rung(rung, out, where, _show) for rung in rungs]
    print_losses(rows)
    return rows
