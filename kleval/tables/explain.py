"""Decomposition of the gap between two runs of one model by what differed for each sample, as far as the rows can tell.

Samples are paired by id, whatever their text. Each pair's difference is booked on what differs for it:

- prompt: the text that was asked (edition, template, tokenizer, begin token: those that differ between the runs are named);
- answer prefix;
- budget: one of the two answers was cut, at other budgets. An answer that ended by itself was not moved by a budget;
- scoring: the same answer has two scores;
- nothing of these: sampling, engine, dtype or hardware, which the runs' settings tell apart, the rows do not.

What differs together is booked together: rows cannot take it apart. The parts add up to the gap. It is bookkeeping, no experiment: a
run that changes one setting at a time says what that setting does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from kleval.tables.compare import Side
from kleval.tables.groups import Asked
from kleval.tables.scores import questions_differ, versus

OTHER = "nothing in the rows: sampling, engine, dtype or hardware"
UNLIKE = "other samples: nothing can be paired"


def explained(a: Side, b: Side) -> list[dict[str, Any]]:
    """One dict per cause, the largest first: `moved` points (or in `unit`) of the mean over tasks and lengths (the parts add up to it),
    the pairs it is booked on, how many of them have another score, and which settings differ. Scores and gains have no common mean:
    tasks that have the one here and the other there are left out."""
    prompt = f"prompt ({'; '.join(_prompt_settings(a, b)) or 'text differs, no recorded setting does'})"
    places = sorted(place for place in a.answers.keys() & b.answers.keys() if a.unit(place[0]) == b.unit(place[0]))
    unit = next((a.unit(task) for task, _ in places), "")
    parts: dict[str, list[tuple[float, float]]] = {}
    used = 0
    for place in places:
        mine, theirs = a.answers[place], b.answers[place]
        found = [
            (_cause(mine[sample], theirs[sample], prompt), _score(theirs[sample]) - _score(mine[sample]))
            for sample in sorted(mine.keys() & theirs.keys())
        ]
        found = [(cause, moved) for cause, moved in found if not math.isnan(moved)]
        if not mine.keys() & theirs.keys():
            means = [_mean([_score(one) for one in side.values()]) for side in (mine, theirs)]
            found = [(f"{UNLIKE} ({'; '.join(_prompt_settings(a, b)) or 'seed or limit'})", means[1] - means[0])]
            found = [part for part in found if not math.isnan(part[1])]
        used += bool(found)
        for cause, moved in found:
            parts.setdefault(cause, []).append((moved, moved / len(found)))
    rows = [
        {
            "record": "part",
            "cause": cause,
            "pairs": 0 if cause.startswith(UNLIKE) else len(moves),
            "changed": sum(moved != 0 for moved, _ in moves),
            "moved": (1 if unit else 100) * math.fsum(share for _, share in moves) / used,
            "unit": unit,
        }
        for cause, moves in parts.items()
    ]
    return sorted(rows, key=lambda row: -abs(row["moved"]))


def _cause(a: Sequence[Asked], b: Sequence[Asked], prompt: str) -> str:
    one, other = a[0], b[0]
    causes = []
    if one.prompt != other.prompt:
        causes.append(prompt)
    if one.answer_prefix != other.answer_prefix:
        causes.append("answer prefix")
    if one.max_new_tokens != other.max_new_tokens and any(asked.cut for asked in (*a, *b)):
        causes.append("budget (an answer was cut)")
    if (
        not causes
        and one.text
        and [asked.text for asked in a] == [asked.text for asked in b]
        and _score(a) != _score(b)
    ):
        causes.append("scoring (the same answer, another score)")
    return " + ".join(causes) or OTHER


def _prompt_settings(a: Side, b: Side) -> list[str]:
    """The settings that shape a prompt and differ."""
    found = list(questions_differ(a.entrant, b.entrant))
    for name in ("add_bos", "template_args", "reasoning"):
        one, other = (side.entrant.run.setting(name) for side in (a, b))
        if one != other:
            found.append(versus(name, one, other))
    tokenizers = [side.entrant.about.get("tokenizer") or {} for side in (a, b)]
    for name, title in (("digest", "tokenizer"), ("chat_template_digest", "chat template")):
        one, other = (tokenizer.get(name) for tokenizer in tokenizers)
        if one != other:
            found.append(versus(title, one, other))
    return found


def _score(answers: Sequence[Asked]) -> float:
    return _mean([asked.score for asked in answers if asked.score is not None])


def _mean(values: Sequence[float]) -> float:
    kept = [value for value in values if not math.isnan(value)]
    return math.fsum(kept) / len(kept) if kept else math.nan
