"""Negative log-likelihood by position: what tasks of likelihoods (`ppl:FILE`) extracted from each document, over documents.

A bucket's value is the mean over documents of a document's nats per token in it; its interval is Student's t over documents, none for
one document alone. Documents of a length are the same in every bucket of it, so that a rise from bucket to bucket is the model's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

from kleval.files import write_text
from kleval.store import Row, RunStore
from kleval.tables.formats import to_csv
from kleval.tables.intervals import student
from kleval.tables.scores import Run
from kleval.text import DASH, format_length

COLUMNS = ("model", "task", "ctx", "from", "to", "nll", "ci_low", "ci_high", "ppl", "documents", "tokens")
HEADS = ("task", "ctx", "position", "NLL [95 %]", "perplexity", "documents", "tokens")


class Positions:
    """Collects rows while they go by (`watch`), then gives the buckets of a model."""

    def __init__(self) -> None:
        self._found: dict[str, dict[tuple[str, str, int, int, int], dict[str, tuple[float, int]]]] = {}

    def watch(self, run: Run) -> Callable[[Row], None]:
        """For `collect`: a function that is called with every row of the run."""
        return lambda row: self.add(run.id, row)

    def add(self, run: str, row: Row) -> None:
        buckets = row.extracted.get("nll") if isinstance(row.extracted, Mapping) else None
        for one in buckets if isinstance(buckets, list) and not row.failed else ():
            place = (row.model, row.task, row.ctx, one["from"], one["to"])
            # A repeat of a document says the same of it again.
            self._found.setdefault(run, {}).setdefault(place, {})[row.id] = (float(one["nll"]), int(one["tokens"]))

    def of(self, run: str) -> list[dict[str, Any]]:
        """A dict with the keys of COLUMNS per model, task, length and bucket, in order; nll in nats per token."""
        return [_bucket(place, list(of.values())) for place, of in sorted(self._found.get(run, {}).items())]


def positions(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """The buckets of one run's rows, as of `Positions.of`."""
    found = Positions()
    for row in rows:
        found.add("", row)
    return found.of("")


def write_csv(store: RunStore, path: Path) -> Path | None:
    """Write the buckets of a run; None, and no file, where no task of it is of likelihoods."""
    if not (found := positions(store.rows())):
        return None
    write_text(path, to_csv(found, COLUMNS))
    return path


def _bucket(place: tuple[str, str, int, int, int], values: list[tuple[float, int]]) -> dict[str, Any]:
    nats = [value for value, _ in values]
    mean, half = fmean(nats), student(nats) if len(nats) > 1 else None
    limits = (None, None) if half is None else (mean - half, mean + half)
    told = (*place, mean, *limits, math.exp(min(mean, 700.0)), len(nats), sum(n for _, n in values))
    return dict(zip(COLUMNS, told, strict=True))


def spelled(row: Mapping[str, Any]) -> list[str]:
    """A dict of `positions` in words: HEADS."""
    limits = DASH if row["ci_low"] is None else f"[{row['ci_low']:.3f}, {row['ci_high']:.3f}]"
    place = f"{format_length(row['from']) if row['from'] else 0}–{format_length(row['to'])}"
    return [
        row["task"],
        format_length(row["ctx"]),
        place,
        f"{row['nll']:.3f} {limits}",
        f"{row['ppl']:.4g}",
        str(row["documents"]),
        f"{row['tokens']:,}",
    ]
