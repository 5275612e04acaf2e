"""Verdicts of `kleval verify` as a table: one row per law, in the order in which they were tried."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from kleval.files import write_text
from kleval.store import Point, RunStore
from kleval.tables.formats import to_csv
from kleval.text import number

HEADER = ("law", "verdict", "largest deviation", "legal rounding", "limit", "cases", "smallest prompt", "why")
COLUMNS = (
    *("model", "law", "title", "verdict", "deviation", "legal", "limit", "tried", "planned", "broken_cases"),
    *("prompt_tokens", "at_token", "case", "cause", "why", "seconds", "ctx", "finished"),
)
ORDER = ("text", "causality", "state", "batch", "prefix-cache", "slots", "reference", "long")


def law_rows(points: Iterable[Point]) -> list[dict[str, Any]]:
    """deviation, legal, limit: nats of log-probability; a deviation of numbers that are not finite is None, as one of no trial."""
    rows = []
    for point in points:
        if point.kind != "law":
            continue
        told = point.settings
        row: dict[str, Any] = {name: point.values.get(name) for name in COLUMNS if name in point.values}
        row |= {"model": point.model, "law": point.protocol, "ctx": point.ctx, "finished": point.finished}
        row |= {name: told.get(name) for name in ("title", "verdict", "why", "cause", "at_token")}
        row |= {
            "case": (told.get("cases") or [None])[0],
            "prompt": told.get("prompt"),
            "finite": told.get("finite", True),
        }
        rows.append(row)
    return sorted(rows, key=lambda row: (row["model"], _place(row["law"])))


def cells(row: Mapping[str, Any]) -> list[str]:
    """A row below HEADER."""
    tried = row["verdict"] != "not testable"
    deviation = "not finite" if not row["finite"] else "" if row["deviation"] is None else _nats(row["deviation"])
    return [
        row["title"],
        row["verdict"],
        deviation,
        _nats(row["legal"]) if tried and row["limit"] else "",
        _nats(row["limit"]) if tried and row["limit"] else "",
        f"{row['tried']}/{row['planned']}" if tried else "",
        f"{row['prompt_tokens']} tokens" if row.get("prompt_tokens") else "",
        row["cause"] or row["why"] or "",
    ]


def broken_lines(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """What a user is told of laws that do not hold."""
    found = []
    for row in rows:
        if row["verdict"] == "broken":
            found.append(f"broken    {row['title']}: {row['case']}; usually {row['cause']}")
        elif row["verdict"] == "undecided":
            found.append(f"undecided {row['title']}: {row['why']}")
    return found


def write_verify_csv(store: RunStore, path: Path) -> Path:
    return write_text(path, to_csv(law_rows(store.points()), COLUMNS))


def _nats(value: float) -> str:
    return number(value) if value >= 1e-3 or value == 0 else f"{value:.1e}"


def _place(law: str) -> int:
    return ORDER.index(law) if law in ORDER else len(ORDER)


def verified(rows: Sequence[Mapping[str, Any]]) -> str:
    """One sentence: which laws do not hold."""
    told = []
    for model in dict.fromkeys(row["model"] for row in rows):
        mine = [row for row in rows if row["model"] == model]
        by = {v: [r["title"] for r in mine if r["verdict"] == v] for v in ("broken", "undecided", "holds")}
        if by["broken"]:
            told.append(f"{model} breaks {_listed(by['broken'])}")
        if by["undecided"]:
            told.append(
                f"{_listed(by['undecided'])} of {model} {'is' if len(by['undecided']) == 1 else 'are'} undecided"
            )
        if not by["broken"] and not by["undecided"]:
            n = len(by["holds"])
            told.append(f"{model} obeys {'the law' if n == 1 else f'all {n} laws'} that could be tried")
    return f"{'; '.join(told)}." if told else ""


def _listed(titles: Sequence[str]) -> str:
    quoted = [f"“{title}”" for title in titles]
    return quoted[0] if len(quoted) == 1 else f"{', '.join(quoted[:-1])} and {quoted[-1]}"
