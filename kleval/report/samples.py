"""Every sample of the runs for the page's browser: an index of all, their texts in compressed blocks that the page opens as needed.

Rows go by once (`Samples.watch`). Each answer becomes one line of JSON, each prompt one line once, whoever was asked it; lines are
gathered to blocks of BLOCK_CHARS, deflated (zlib, RFC 1950) and written in base64. Long texts are excerpts (`store.excerpts`). Once the
blocks reach MOST_CHARS prompts are left out; of cells with many answers, in runs of more than MOST_ANSWERS, the first ones are shown;
the page says so. The page's script puts all of it in as text.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from kleval.report import embed
from kleval.report.reasons import held, reasons
from kleval.report.score_curves import Looks, Shape
from kleval.report.sections import Section, section
from kleval.store import Row, RunStore
from kleval.store.excerpts import Excerpt, excerpt
from kleval.tables.scores import Entrant, Run
from kleval.text import format_length, plural, seconds
from kleval.types import UsageError

Verdict = Literal["failed", "wrong", "partial", "right", "unscored", "measured"]
VERDICTS: tuple[Verdict, ...] = ("failed", "wrong", "partial", "right", "unscored", "measured")
BROKEN = ("cut", "empty", "looped", "reasoning_cut")

BLOCK_CHARS = 256 * 1024
MOST_CHARS = 30_000_000  # of all blocks: the page stays below 40 MB
MOST_ANSWERS = 50_000  # of all cells, equally many of each
SNIPPET_CHARS = 90
EXTRACTED_CHARS = 2000

Place = tuple[int, int]  # block, line in it


@dataclass(frozen=True, slots=True)
class Browser:
    """What the page holds: the index and the blocks, in base64. served: whether whole prompts can be asked for."""

    index: str
    blocks: tuple[str, ...]
    served: bool = False


def verdict(row: Row) -> Verdict:
    if row.failure is not None:
        return "failed"
    if row.score is None:
        return "unscored"
    if row.unit:
        return "measured"
    return "right" if row.score >= 1 else "wrong" if row.score <= 0 else "partial"


class Blocks:
    """Lines of JSON in compressed blocks. chars: of all finished blocks."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.chars = 0
        self._lines: list[str] = []
        self._waiting = 0

    def add(self, line: str) -> Place:
        place = len(self.done), len(self._lines)
        self._lines.append(line)
        self._waiting += len(line)
        if self._waiting >= BLOCK_CHARS:
            self.close()
        return place

    def close(self) -> tuple[str, ...]:
        """All blocks, the last one as full as it is."""
        if self._lines:
            self.done.append(embed.packed("\n".join(self._lines)))
            self.chars += len(self.done[-1])
            self._lines, self._waiting = [], 0
        return tuple(self.done)


@dataclass(frozen=True, slots=True)
class _Answer:
    run: str
    model: str
    order: tuple[Any, ...]
    fields: list[Any]


class Samples:
    """Collects rows while they go by (`watch`), then makes the browser's data (`browser`).

    served: the page can ask for whole prompts, prompts: (run, row) by the number that it then knows one by. n_runs: that go by.
    left_out: prompts, unshown: answers that are not in the page.
    """

    def __init__(self, served: bool = False, n_runs: int = 1) -> None:
        self.served, self.n_runs = served, n_runs
        self.prompts: list[tuple[RunStore, Row]] = []
        self._blocks = Blocks()
        self._answers: list[_Answer] = []
        self._known: dict[str, int] = {}  # hash -> number
        self._places: list[Place] = []
        self._of_cell: Counter[tuple[str, str, str, int]] = Counter()
        self.left_out = self.unshown = 0

    def watch(self, run: Run) -> Callable[[Row], None]:
        """For `collect`: a function that is called with every row of the run."""

        n_cells = self.n_runs * run.store.n_cells()
        most = max(1, MOST_ANSWERS // max(1, n_cells))

        def see(row: Row) -> None:
            cell = run.id, row.model, row.task, row.ctx
            self._of_cell[cell] += 1
            if self._of_cell[cell] > most:
                self.unshown += 1
                return
            holds = held(row)
            number = self._prompt(run.store, row)
            last = row.outcomes[-1] if row.outcomes else {}
            snippet = " ".join(str(last.get("text") or "")[: 4 * SNIPPET_CHARS].split())[:SNIPPET_CHARS]
            flags = sum(1 << i for i, name in enumerate(BROKEN) if name in holds)
            value = None if row.score is None else round(row.score, 4)
            place = self._blocks.add(_json(_details(row, holds)))
            fields = [VERDICTS.index(verdict(row)), value, flags, *place, number, snippet]
            order = (row.task, row.ctx, row.index, row.id, row.repeat)
            self._answers.append(_Answer(run.id, row.model, order, fields))

        return see

    def _prompt(self, store: RunStore, row: Row) -> int:
        number = self._known.get(row.prompt_hash)
        if number is not None:
            return number
        number = self._known[row.prompt_hash] = len(self._places)
        if self.served:
            self.prompts.append((store, replace(row, outcomes=(), extracted=None, metrics={})))
        question: dict[str, Any] = {"references": [_shown(excerpt(reference)) for reference in row.references]}
        prompt = "null"
        if self._blocks.chars >= MOST_CHARS:
            self.left_out += 1
            question["missing"] = "left out to keep the page small"
        else:
            question["prefix"] = row.answer_prefix[-1000:]
            try:
                prompt = store.read_excerpt(row)
            except UsageError:
                question["missing"] = "not stored with the run"
        self._places.append(self._blocks.add(f'{_json(question)[:-1]},"prompt":{prompt}}}'))
        return number

    def browser(self, entrants: Sequence[Entrant], shape: Shape, looks: Looks) -> Browser:
        """The data in the page's order: by task, length, sample and repeat."""
        models = {(entrant.run.id, entrant.model): i for i, entrant in enumerate(entrants)}
        tasks, ctxs = list(shape.tasks), sorted({answer.order[1] for answer in self._answers})
        questions: dict[tuple[Any, ...], list[list[Any]]] = {}
        for answer in self._answers:
            questions.setdefault(answer.order, []).append([models[answer.run, answer.model], *answer.fields])
        rank = {task: i for i, task in enumerate(tasks)}
        index = {
            "models": [
                {"label": e.label, "run": e.run.id, "model": e.model, "colour": looks[e.key].colour} for e in entrants
            ],
            "tasks": tasks,
            "lengths": [[ctx, format_length(ctx)] for ctx in ctxs],
            "verdicts": VERDICTS,
            "broken": BROKEN,
            "prompts": self._places,
            "samples": [
                [rank[task], ctxs.index(ctx), number, sample, repeat, answers]
                for (task, ctx, number, sample, repeat), answers in sorted(
                    questions.items(), key=lambda item: (rank[item[0][0]], *item[0][1:])
                )
            ],
        }
        return Browser(embed.packed(_json(index)), self._blocks.close(), self.served)


def samples_section(samples: Samples, entrants: Sequence[Entrant], shape: Shape, looks: Looks) -> Section:
    """The section of the browser."""
    parts = [plural(n, noun) for n, noun in ((samples.unshown, "answer"), (samples.left_out, "prompt")) if n]
    said = section("samples", (), ["left_out"] if parts else [], left_out=" and ".join(parts))
    return replace(said, samples=samples.browser(entrants, shape, looks))


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str)


def _shown(found: Excerpt) -> tuple[int, Any]:
    """As `Excerpt.json` has it."""
    return found.chars, found.parts


def _details(row: Row, holds: frozenset[str]) -> dict[str, Any]:
    """What the page shows of an answer once it is opened."""
    extracted = row.extracted if isinstance(row.extracted, str) else _json(row.extracted)
    return {
        "extracted": None if row.extracted is None else extracted[:EXTRACTED_CHARS],
        "why": reasons(row, holds),
        "failure": row.failure,
        "calls": [_call(outcome) for outcome in row.outcomes],
        "facts": [f"{row.prompt_tokens:,} prompt tokens", row.protocol, f"{row.edition} edition"],
    }


def _call(outcome: Mapping[str, Any]) -> dict[str, Any]:
    said = [plural(int(outcome["output_tokens"]), "token")] if outcome.get("output_tokens") is not None else []
    said += [f"ended by {outcome['finish_reason']}"] if outcome.get("finish_reason") else []
    said += [seconds(float(outcome["seconds"]))] if outcome.get("seconds") else []
    said += [f"{outcome['attempts']} attempts"] if (outcome.get("attempts") or 1) > 1 else []
    texts = {name: str(outcome[name]) for name in ("text", "reasoning") if outcome.get(name)}
    return {
        "kind": outcome.get("kind", "generate"),
        "said": ", ".join(said),
        "logprob": outcome.get("logprob_sum"),
        "failure": outcome.get("failure"),
        **{name: _shown(excerpt(text)) for name, text in texts.items()},
    }
