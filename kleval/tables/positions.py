"""Negative log-likelihood by position: what tasks of likelihoods (`ppl:FILE`) extracted from each document, over documents.

A bucket's value is the mean over documents of a document's nats per token in it; its interval is Student's t over documents, none for
one document alone. Documents of a length are the same in every bucket of it, so that a rise from bucket to bucket is the model's.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from statistics import fmean, stdev
from typing import Any

from kleval.store import Row
from kleval.text import DASH, format_length

COLUMNS = ("model", "task", "ctx", "from", "to", "nll", "ci_low", "ci_high", "ppl", "documents", "tokens")
HEADS = ("task", "ctx", "position", "NLL [95 %]", "perplexity", "documents", "tokens")


def positions(rows: Iterable[Row]) -> list[dict[str, Any]]:
    """A dict with the keys of COLUMNS per model, task, length and bucket, in order; nll in nats per token."""
    found: dict[tuple[str, str, int, int, int], list[tuple[float, int]]] = {}
    for row in rows:
        buckets = row.extracted.get("nll") if isinstance(row.extracted, Mapping) else None
        for one in buckets if isinstance(buckets, list) and not row.failed else ():
            place = (row.model, row.task, row.ctx, one["from"], one["to"])
            found.setdefault(place, []).append((float(one["nll"]), int(one["tokens"])))
    return [_bucket(place, values) for place, values in sorted(found.items())]


def _bucket(place: tuple[str, str, int, int, int], values: list[tuple[float, int]]) -> dict[str, Any]:
    nats = [value for value, _ in values]
    mean, half = fmean(nats), _half(nats)
    limits = (None, None) if half is None else (mean - half, mean + half)
    told = (*place, mean, *limits, math.exp(min(mean, 700.0)), len(nats), sum(n for _, n in values))
    return dict(zip(COLUMNS, told, strict=True))


def _half(values: list[float]) -> float | None:
    """Half of the 95 % interval of a mean."""
    if len(values) < 2:
        return None
    from scipy.stats import t

    return float(t.ppf(0.975, len(values) - 1)) * stdev(values) / math.sqrt(len(values))


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
