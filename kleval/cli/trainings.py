"""Trainings and studies on the terminal: how loss and accuracy went, and what synthetic tests and studies came to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from kleval.cli.console import table
from kleval.text import DASH, duration

if TYPE_CHECKING:
    from kleval.tables.trainings import Studies, Training

MOST_LINES = 12


def print_studies(found: Studies) -> None:
    """Nothing where there is none. A training of a test or a study is shown where its study has no result yet."""
    results = bool(found.tests or found.losses)
    for one in found.families if results else found.trainings:
        _training(one)
    for rows, show in ((found.tests, print_tests), (found.losses, print_losses)):
        if rows:
            show(rows)
            click.echo()


def print_tests(rows: Sequence[Mapping[str, Any]]) -> None:
    """Results of synthetic tests, the best learning rate of each."""
    from kleval.tables.trainings import best

    table(["task", "model", "length", "accuracy", "steps", "paper"], [_tested(row) for row in best(rows)])


def print_losses(rows: Sequence[Mapping[str, Any]]) -> None:
    """Results of an ablation or a ladder. paper: perplexity of text in training / in validation, its Table 1."""
    heads = ["training", "loss", "parameters", "tokens", "paper"]
    lines = [
        (r["name"], f"{r['loss']:.3f}", f"{r['parameters']:,}", f"{r['tokens']:,}", r.get("paper", DASH)) for r in rows
    ]
    table(heads, lines)


def _training(one: Training) -> None:
    last = one.points[-1]
    state = "complete" if one.complete else f"{last['tokens']:,} of {last['budget']:,} tokens"
    speed = f"{last.get('tokens_per_second', 0):,.0f} tokens/s"
    click.echo(f"{one.path}: {one.label}, {state}, {duration(last.get('seconds', 0))}, {speed}\n")
    lines = [
        (f"{p['tokens']:,}", p.get("length", DASH), f"{p['loss']:.3f}", f"{_mean(p):.1f}")
        for p in one.thinned(MOST_LINES)
    ]
    table(["tokens", "length", "loss", "accuracy, mean of kinds"], lines)
    click.echo()
    table(["kind", "accuracy"], [(kind, f"{100 * value:.1f}") for kind, value in last["accuracy"].items()])
    click.echo()


def _mean(point: Mapping[str, Any]) -> float:
    values = list(point["accuracy"].values())
    return 100 * sum(values) / len(values) if values else 0.0


def _tested(row: Mapping[str, Any]) -> tuple[str, ...]:
    paper = f"{row['paper']:g}" if "paper" in row else DASH
    return (
        *(row["task"], row["model"], f"{row['length']:,}", f"{100 * row['peak']:.1f}"),
        *(f"{row['steps_taken']:,}", paper),
    )
