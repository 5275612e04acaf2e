"""`kleval gate RUN… --fail-on "…"`: conditions on runs and profiles, as an exit code."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kleval.cli import options
from kleval.cli.console import note
from kleval.cli.profile_table import FORMATS, Row, print_records, print_table
from kleval.cli.runs import open_runs
from kleval.text import DASH, number, plural
from kleval.types import OK, REGRESSION, UNDECIDED, UsageError

if TYPE_CHECKING:
    from kleval.store import RunStore
    from kleval.tables.compare import M
    from kleval.tables.conditions import Condition
    from kleval.tables.gate import Judgement

MOST = 10_000_000  # samples: more than anybody asks
CODES = {"pass": OK, "fail": REGRESSION, "undecided": UNDECIDED}


@click.command(short_help="May it ship? Conditions on runs and profiles, as an exit code.")
@click.argument("directories", nargs=-1, required=True, metavar="RUN…", type=options.PLACE)
@options.option(
    "--against",
    multiple=True,
    type=click.Path(path_type=Path),
    metavar="BASE",
    help="What signed conditions compare with, as often as needed: runs, profiles or folders of them.",
)
@options.option(
    "--fail-on",
    multiple=True,
    metavar="CONDITION",
    help="metric[@length] < or > number, several by commas or options: 'ruler < -2', 'tpot@64k > +10%'; failures > 1% and "
    "cut > 1% besides, unless they are named.",
)
@options.option(
    "--model",
    envvar="KLEVAL_GATE_MODEL",
    metavar="NAMES",
    help="The model to judge, or BASE's and RUN's, comma-separated.  [default: all]",
)
@options.option("--format", "kind", type=click.Choice(FORMATS), default="table", help="How stdout is written.")
def gate(
    directories: tuple[Path, ...],
    against: tuple[Path, ...],
    fail_on: tuple[str, ...],
    model: str | None,
    kind: str,
) -> int:
    """Judge conditions that must not hold. A condition fails when its whole 95 % interval lies beyond the number, passes when none
    of it does, and is undecided between.

    Exit code 0: all pass. 4: one fails. 5: none fails and one is undecided; the n that would decide is said.
    """
    from kleval.tables.conditions import conditions, defaults
    from kleval.tables.gate import corrected, overall, rows

    names = options.names(model)
    if len(names) > 2:
        raise UsageError("--model takes one name, or BASE's and RUN's: BASE,RUN")
    asked = conditions(fail_on)
    judge = _judge(open_runs(directories), open_runs(against), names)
    found = [one for condition in asked for one in judge(condition, True)]
    found += [one for condition in defaults(asked) for one in judge(condition, False)]
    if not found:
        raise UsageError("nothing to judge: give a condition with --fail-on")
    found = corrected(found)
    verdict = overall(found)
    table = rows(found)
    if kind in ("table", "md"):
        header = ["condition", "of", "value", "95 %", "n", "p", "verdict"]
        print_table(header, [_line(row) for row in table], kind)
    else:
        print_records(table, kind)
    for remark in dict.fromkeys(text for one in found for text in one.remarks):
        note(f"differs from BASE: {remark}")
    note(f"gate: {verdict}")
    return CODES[verdict]


def _judge(
    stores: Sequence[RunStore], bases: Sequence[RunStore], names: Sequence[str]
) -> Callable[[Condition, bool], list[Judgement]]:
    """What judges a condition on every model of the runs or profiles, beside the one of the base that it is compared with."""
    from kleval.tables.compare import read_sides
    from kleval.tables.compare_times import limits, read_timed
    from kleval.tables.costs import read_profile
    from kleval.tables.gate import judge_run, judge_times, known

    runs, their_runs = ([store for store in of if store.is_run] for of in (stores, bases))
    sides, others = (read_sides(of) if of else [] for of in (runs, their_runs))
    timed, their_times = (
        read_timed([read_profile(store) for store in of if store.is_profile]) for of in (stores, bases)
    )

    def judge(condition: Condition, needed: bool) -> list[Judgement]:
        """needed: whether it has to be there."""
        if condition.is_time:
            found = [judge_times(condition, run, base) for base, run in _pairs(condition, timed, their_times, names)]
        else:
            found = [judge_run(condition, run, base) for base, run in _pairs(condition, sides, others, names)]
        judged = [one for one in found if one is not None]
        if needed and not judged:
            there = ", ".join(known(sides, timed)) or "; ".join(limits(timed))
            raise UsageError(f"'{condition.text}' names nothing that is there: there are {there}")
        return judged

    return judge


def _pairs(
    condition: Condition, ours: Sequence[M], theirs: Sequence[M], names: Sequence[str]
) -> list[tuple[M | None, M]]:
    from kleval.tables.compare import matched

    if condition.against and ours and theirs:
        return list(matched(theirs, ours, names))
    return [(None, one) for one in ours if not names or one.model == names[-1]]


def _line(row: Row) -> list[str]:
    limits = DASH if row["low"] is None else f"{number(row['low'])} – {number(row['high'])}"
    verdict = row["verdict"] + (f" ({row['why']})" if row["why"] else "")
    if row["needed"] is not None:
        verdict += (
            f"; {row['needed']:,} {row['unit']} would decide" if row["needed"] < MOST else "; it lies at the number"
        )
    p = f"{row['p_holm']:.3f}" if row["p_holm"] >= 0.001 else "<0.001"
    return [row["condition"], row["of"], number(row["value"]), limits, plural(row["n"], row["unit"][:-1]), p, verdict]
