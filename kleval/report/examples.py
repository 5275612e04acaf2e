"""A few answers of every cell for the reader to look at: never a fair sample, and said so where they are shown.

Of each (model, task, length) up to three are kept: a failure, a wrong answer, a partly right one and a right one as far
as there are such, in this order, then whatever comes next. Texts are clipped, and the whole is bounded, so that a
report of million-token prompts stays a page.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from kleval.report.score_curves import Shape
from kleval.report.sections import Section, section
from kleval.store import Row, RunStore
from kleval.tables.scores import Entrant, Run
from kleval.text import format_length, plural
from kleval.types import UsageError

Verdict = Literal["failed", "wrong", "partial", "right", "unscored"]
VERDICTS: tuple[Verdict, ...] = ("failed", "wrong", "partial", "right", "unscored")

PER_CELL = 3
PROMPT_CHARS = 420
ANSWER_CHARS = 600
REFERENCE_CHARS = 300
TOTAL_CHARS = 1_200_000

# Control characters have no place in HTML; tab and newline stay.
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Example:
    """One answer, clipped. row: whose answer it is. prompt: the end of the prompt; prompt_cut: characters left out before it.

    answer: what the model wrote in the last request, empty for a failure. ended: how many tokens it has, and by what it ended.
    """

    entrant: str
    model: str
    length: str
    row: Row
    verdict: Verdict
    prompt: str
    prompt_cut: int
    references: str
    answer: str
    answer_cut: int
    failure: Mapping[str, str] | None
    ended: str

    @property
    def chars(self) -> int:
        return len(self.prompt) + len(self.answer) + len(self.references)


def verdict(row: Row) -> Verdict:
    if row.failure is not None:
        return "failed"
    if row.score is None:
        return "unscored"
    return "right" if row.score >= 1 else "wrong" if row.score <= 0 else "partial"


class Picker:
    """Keeps candidates while rows go by (`watch`), then makes the examples (`pick`)."""

    def __init__(self) -> None:
        self._kept: dict[tuple[str, str, str, int], dict[Verdict, list[Row]]] = {}

    def watch(self, run: Run) -> Callable[[Row], None]:
        """For `collect`: a function that is called with every row of the run."""

        def see(row: Row) -> None:
            by_verdict = self._kept.setdefault((run.id, row.model, row.task, row.ctx), {})
            rows = by_verdict.setdefault(verdict(row), [])
            if len(rows) < PER_CELL:
                rows.append(row)

        return see

    def pick(self, entrants: Sequence[Entrant], total_chars: int = TOTAL_CHARS) -> tuple[list[Example], int]:
        """The examples by task, length, model and index, and how many were left out to keep within total_chars.

        The first example of every cell comes before the second of any.
        """
        chosen = {
            (entrant, place): self._chosen(entrant, place)
            for entrant in entrants
            for place in sorted({(t, c) for run, m, t, c in self._kept if (run, m) == (entrant.run.id, entrant.model)})
        }
        found: list[Example] = []
        left_out = used = 0
        for nth in range(PER_CELL):
            for (entrant, _), rows in chosen.items():
                if nth >= len(rows):
                    continue
                if used >= total_chars:
                    left_out += 1
                    continue
                example = _example(entrant, entrant.run.store, rows[nth])
                used += example.chars
                found.append(example)
        order = {entrant.key: i for i, entrant in enumerate(entrants)}
        found.sort(key=lambda e: (e.row.task, e.row.ctx, order[e.entrant], e.row.index, e.row.repeat))
        return found, left_out

    def _chosen(self, entrant: Entrant, place: tuple[str, int]) -> list[Row]:
        kept = self._kept[(entrant.run.id, entrant.model, *place)]
        rounds = [rows[nth] for nth in range(PER_CELL) for v in VERDICTS if nth < len(rows := kept.get(v, []))]
        return rounds[:PER_CELL]


def _example(entrant: Entrant, store: RunStore, row: Row) -> Example:
    try:
        prompt = store.read_prompt(row)
        text = prompt if isinstance(prompt, str) else "\n\n".join(f"[{m['role']}]\n{m['content']}" for m in prompt)
    except UsageError:
        text = "(the prompt is not stored with the run)"
    last = row.outcomes[-1] if row.outcomes else {}
    answer, references = str(last.get("text") or ""), ", ".join(row.references)
    tokens, reason = sum(int(outcome.get("output_tokens") or 0) for outcome in row.outcomes), last.get("finish_reason")
    return Example(
        entrant=entrant.key,
        model=entrant.label,
        length=format_length(row.ctx),
        row=replace(row, answer_prefix=clean(row.answer_prefix[-PROMPT_CHARS:])),
        verdict=verdict(row),
        prompt=clean(text[-PROMPT_CHARS:]),
        prompt_cut=max(0, len(text) - PROMPT_CHARS),
        references=clean(references[:REFERENCE_CHARS]) + ("…" if len(references) > REFERENCE_CHARS else ""),
        answer=clean(answer[:ANSWER_CHARS]),
        answer_cut=max(0, len(answer) - ANSWER_CHARS),
        failure={name: clean(str(text)[:ANSWER_CHARS]) for name, text in row.failure.items()} if row.failure else None,
        ended=plural(tokens, "token") + (f", ended by {reason}" if reason else ""),
    )


def clean(text: str) -> str:
    """Control characters and lone surrogates as a visible mark."""
    return _CONTROLS.sub("\ufffd", text.replace("\r\n", "\n"))


def samples_section(picker: Picker, entrants: Sequence[Entrant], shape: Shape) -> Section | None:
    """None where no run holds an answer."""
    shown, left_out = picker.pick(entrants)
    by_task = [(task, [example for example in shown if example.row.task == task]) for task in shape.tasks]
    found = tuple((task, examples) for task, examples in by_task if examples)
    more = plural(left_out, "more example")
    of_all = section("examples", (), ["left_out"] if left_out else [], left_out=more)
    return replace(of_all, samples=found) if found else None
