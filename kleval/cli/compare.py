"""`kleval compare A B`: paired tests of two runs, ratios of two profiles, and what differs between them besides."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from kleval.cli import options
from kleval.cli.console import note
from kleval.cli.profile_table import FORMATS, Row, print_table
from kleval.cli.runs import open_runs
from kleval.tables import formats
from kleval.text import format_length, number, signed
from kleval.types import UsageError

MOST_FLIPS = 20  # on the terminal


@click.command(short_help="Is B worse than A? Paired tests of runs, ratios of profiles.")
@click.argument("a", metavar="A", type=options.PLACE)
@click.argument("b", metavar="B", type=options.PLACE)
@options.option(
    "--model",
    envvar="KLEVAL_COMPARE_MODEL",
    metavar="NAMES",
    help="The model to compare, or A's and B's, comma-separated.  [default: those of the same name]",
)
@options.option(
    "--effect",
    type=options.Number(min=0, min_open=True, max=100),
    metavar="N",
    help="Say how many samples (sessions) find a difference of N points (N %).  [default: 2 points, 10 %]",
)
@options.option("--flips", is_flag=True, help="List the samples whose score differs.")
@options.option(
    "--explain", is_flag=True, help="Say what each setting that differs moved, as far as the rows can tell."
)
@options.option("--format", "kind", type=click.Choice(FORMATS), default="table", help="How stdout is written.")
def compare(a: Path, b: Path, model: str | None, effect: float | None, flips: bool, explain: bool, kind: str) -> None:
    """Compare two runs on the samples that both answered, and two profiles by what they measured: B against A.

    Each of A and B is a run directory, a profile or a folder of them; profiles of one folder are sessions of one thing.
    """
    names = options.names(model)
    if len(names) > 2:
        raise UsageError("--model takes one name, or A's and B's: A,B")
    from kleval.tables.contrasts import records

    one, other = (open_runs([place]) for place in (a, b))
    _print(records(one, other, names, effect, flips, explain), kind)


def _print(records: Sequence[Mapping[str, Any]], kind: str) -> None:
    """JSON holds every record; CSV the differences or ratios (flips where there are no others), the rest goes to stderr."""
    if kind == "json":
        click.echo(json.dumps(records, indent=1, ensure_ascii=False))
    elif kind == "jsonl":
        click.echo("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in records), nl=False)
    elif kind == "csv":
        first = [row for row in records if row["record"] == records[0]["record"]]
        click.echo(formats.to_csv(first, list(first[0])), nl=False)
        for row in records:
            if "text" in row:
                note(f"{row['record']}: {row['text']}")
    else:
        for pair in dict.fromkeys((row["a"], row["b"]) for row in records):
            _print_pair([row for row in records if (row["a"], row["b"]) == pair], kind)


def _print_pair(records: Sequence[Row], kind: str) -> None:
    from kleval.tables import compare, compare_times

    of = {name: [row for row in records if row["record"] == name] for name in ("difference", "ratio", "part", "flip")}
    title = f"B {records[0]['b']} against A {records[0]['a']}"
    if shown := of["difference"]:
        unit = str(shown[0]["unit"])
        name, points = (f"gains, {unit},", unit) if unit else ("scores × 100", "points")
        what = f"{title}: {name} on the same samples; effect {number(shown[0]['effect'])} {points}"
        print_table(compare.HEADS, [compare.spelled(row) for row in shown], kind, what)
    if shown := of["ratio"]:
        lines = [compare_times.spelled(row) for row in shown]
        print_table(compare_times.HEADS, lines, kind, f"{title}: costs; effect {shown[0]['effect']:.0%}")
    if shown := of["part"]:
        lines = [[row["cause"], str(row["pairs"]), str(row["changed"]), _moved(row)] for row in shown]
        print_table(["what differs", "pairs", "other score", "moved B - A"], lines, kind, f"{title}: parts of the gap")
    if shown := of["flip"]:
        lines = [
            [
                row["sample"],
                row["task"],
                format_length(row["ctx"]),
                number(row["a_score"] if row["unit"] else 100 * row["a_score"]),
                number(row["b_score"] if row["unit"] else 100 * row["b_score"]),
            ]
            for row in shown[:MOST_FLIPS]
        ]
        more = f", {MOST_FLIPS} of {len(shown)}; all with --format jsonl" if len(shown) > MOST_FLIPS else ""
        print_table(["sample", "task", "ctx", "A", "B"], lines, kind, f"{title}: samples with another score{more}")
    said = {"refused": "not compared", "differs": "differs", "unpaired": "not paired"}
    for row in records:
        if row["record"] in said:
            click.echo(f"{'- ' if kind == 'md' else ''}{said[row['record']]}: {row['text']}")


def _moved(row: Row) -> str:
    return signed(row["moved"], row["unit"]) if row["unit"] else signed(row["moved"] / 100)
