"""Reasons of one answer's score, in words: its metrics, the references that it holds or lacks, what is wrong with it as a text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kleval.report.sections import words
from kleval.store import Row
from kleval.tables.answers import condition
from kleval.text import plural, score

LISTED = 12  # references, metrics or choices that are named one by one
BROKEN = {
    "cut": "The budget of {budget:,} new tokens cut the answer.",
    "empty": "The answer is empty.",
    "looped": "The answer repeats one unit to its end.",
    "reasoning_cut": "Only reasoning came: the budget of {budget:,} new tokens ended before an answer.",
}


def reasons(row: Row, holds: frozenset[str]) -> list[str]:
    """One sentence each. holds: `condition` of the row."""
    found = []
    if row.failure is not None:
        found.append("It failed, and counts as neither wrong nor right.")
    elif row.score is None:
        found.append("It has no score.")
    else:
        found.append(
            f"{row.metric} is {_score(row.score, row.unit)}: {words()['metric'].get(row.metric, 'defined by the task.')}"
        )
        found += _matches(row)
        others = [f"{name} {_score(value, row.unit)}" for name, value in row.metrics.items() if name != row.metric]
        found += [f"Beside it: {', '.join(_few(others))}."] if others else []
    found += _pairs(row) if row.unit else _choices(row)
    found += [text.format(budget=row.max_new_tokens) for name, text in BROKEN.items() if name in holds]
    return found


def held(row: Row) -> frozenset[str]:
    """What of `answers.BROKEN` holds of the row."""
    return condition(row.outcomes, row.references) - {"texts"}


def _score(value: float | None, unit: str = "") -> str:
    return "not scored" if value is None else score(value, unit)


def _pairs(row: Row) -> list[str]:
    """The log-likelihoods of each reference that were subtracted."""
    each = row.extracted["references"] if isinstance(row.extracted, Mapping) else ()
    texts = [text for text in row.references if text]
    said = [
        f"{reference} ({plural(one['tokens'], 'token')}) {one['logprob_context']:.2f} with the context,"
        f" {one['logprob_question']:.2f} without"
        for reference, one in zip(_few(texts), each, strict=False)
    ]
    return [f"Log-likelihoods: {'; '.join(said)}."] if said else []


def _matches(row: Row) -> list[str]:
    """Which references occur in the answer, where that is what the score counts: said only if it comes to the same score."""
    if not row.metric.startswith("string_match") or not row.references or not row.outcomes:
        return []
    text = str(row.outcomes[-1].get("text") or "").lower()
    there = [reference for reference in row.references if reference.lower() in text]
    share = len(there) / len(row.references)
    if abs((share if row.metric.endswith("all") else float(bool(there))) - (row.score or 0.0)) > 1e-6:
        return []
    lacking = [reference for reference in row.references if reference not in there]
    said = [f"In the answer: {', '.join(_few(there))}."] if there else []
    return said + ([f"Not in the answer: {', '.join(_few(lacking))}."] if lacking else [])


def _choices(row: Row) -> list[str]:
    """The log-likelihoods that were compared."""
    sums = [outcome for outcome in row.outcomes if outcome.get("logprob_sum") is not None]
    names = row.meta.get("choices")
    if len(sums) < 2:
        return []
    known = [str(name) for name in names] if isinstance(names, list) and len(names) == len(sums) else []
    gold = row.meta.get("gold")
    said = [
        f"{known[i] if known else f'choice {i + 1}'} {_logprob(outcome)}{' (right)' if i == gold else ''}"
        for i, outcome in enumerate(sums)
    ]
    return [f"Log-likelihoods: {', '.join(_few(said))}."]


def _logprob(outcome: Mapping[str, object]) -> str:
    value = outcome["logprob_sum"]
    return f"{value:.2f}" if isinstance(value, (int, float)) else str(value)


def _few(texts: Sequence[str]) -> list[str]:
    shown = [text if len(text) <= 120 else f"{text[:119]}…" for text in texts[:LISTED]]
    return shown + ([f"and {len(texts) - LISTED} more"] if len(texts) > LISTED else [])
