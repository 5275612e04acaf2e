"""Comparison of two sets of runs and profiles as records: what `kleval compare` prints, in its JSON and in Python."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kleval.store import RunStore
from kleval.tables import compare, compare_times
from kleval.tables.costs import read_profile
from kleval.tables.explain import explained
from kleval.types import UsageError


def records(
    a: Sequence[RunStore],
    b: Sequence[RunStore],
    names: Sequence[str] = (),
    effect: float | None = None,
    flips: bool = False,
    explain: bool = False,
) -> list[dict[str, Any]]:
    """B against A: a dict per `difference`, `ratio`, `part`, `flip`, and per thing that is `refused`, `differs` or is `unpaired`.

    names: a model, or A's and B's. effect: in points (of ratios in percent); None: 2 points, 10 %. UsageError where nothing compares.
    """
    found: list[dict[str, Any]] = []
    runs = [[s for s in side if s.is_run] for side in (a, b)]
    profiles = [[s for s in side if s.is_profile] for side in (a, b)]
    if all(runs):
        found += _scores(runs, names, (effect or 2) / 100, flips, explain)
    if all(profiles):
        found += _times(profiles, names, (effect or 10) / 100)
    if not found:
        sides = (", ".join(str(store.path) for store in side) for side in (a, b))
        raise UsageError(f"{' and '.join(sides)} cannot be compared: one holds scores, the other a profile")
    return found


def _scores(
    stores: Sequence[Sequence[RunStore]], names: Sequence[str], effect: float, flips: bool, explain: bool
) -> list[dict[str, Any]]:
    records: list[dict[str, Any]] = []
    a, b = map(compare.read_sides, stores)
    for mine, theirs in compare.matched(a, b, names):
        pair = {"a": mine.label, "b": theirs.label}
        parts = [{**row, **pair} for row in explained(mine, theirs)] if explain else []
        try:
            found = compare.compared(mine, theirs)
        except UsageError as error:
            if not parts:
                raise
            records += [*parts, {"record": "refused", "text": str(error), **pair}]
            continue
        records += compare.rows(found, effect)
        records += [{**row, **pair} for row in compare.notes(found)] + parts
        if flips:
            places = [one.places[0] for one in found.lines if len(one.places) == 1]
            records += [{"record": "flip", **pair, **row} for row in compare.flips(mine, theirs, places)]
    return records


def _times(stores: Sequence[Sequence[RunStore]], names: Sequence[str], effect: float) -> list[dict[str, Any]]:
    records: list[dict[str, Any]] = []
    a, b = (compare_times.read_timed([read_profile(store) for store in side]) for side in stores)
    for mine, theirs in compare.matched(a, b, names):
        records += compare_times.rows(mine, theirs, effect)
        pair = {"a": mine.model, "b": theirs.model}
        records += [{"record": "differs", "text": text, **pair} for text in compare_times.labels(mine, theirs)]
    return records
