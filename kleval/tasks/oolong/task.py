"""The tasks `oolong/synth` and `oolong/real`: one call, the window as the system's message, the question as the user's.

Official, synth: of the published rows those of the longest window of at most ctx; windows are called by a number of tokens that they
fill to about seven tenths. real: all rows that fit. Builtin: a window of kleval's own, as many lines as ctx holds.

Scores: abertsch72/oolong @ adbf1cb, src/eval/eval_helpers.py. synth: what stands behind the last colon; right to the letter, a number
the less the farther it is from the right one, a date in any form. real: what stands in `\\boxed{}`; numbers likewise, a list by how
many of the right ones are in it.
"""

from __future__ import annotations

import ast
import random
import re
from collections.abc import Callable, Iterator, Sequence
from copy import copy
from datetime import datetime
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from kleval.tasks import data, datafile, tables
from kleval.tasks.base import OneCall
from kleval.tasks.oolong import made
from kleval.tasks.plain_editions import Asked, Made, Rows, as_it_is, longest_within
from kleval.tasks.prose import SENTENCES_VERSION
from kleval.tasks.sized import SizedTask
from kleval.types import Completion, ContextTooSmall, Prompt, Sample, Score, UsageError

PROTOCOL = "oolong-adbf1cb"
OFFICIAL_BUDGET = 1024
WINDOWS: dict[str, type[made.Messages] | type[made.Transcript]] = {"synth": made.Messages, "real": made.Transcript}
FILES = {"synth": ("data/test", "data/test-*.parquet"), "real": ("dnd/test", "dnd/test.jsonl")}
LENGTHS = {f"{1 << power}k": 1 << power + 10 for power in range(13)}
_SYSTEM = "You are a helpful assistant."
_LEAST = 8  # lines of a window
Gold = str | int | datetime
Parsed = str | int | list[str]

CLOSE = 0.75  # the worth of a number, once for every step it is away from the right one
COMPARISONS = ("more common", "less common", "same frequency")
NUMERIC, DATE = "ANSWER_TYPE.NUMERIC", "ANSWER_TYPE.DATE"
_SHORT = 20
_BOXED = (re.compile(r"\\boxed\{\\text\{([^}]*)\}\}"), re.compile(r"\\boxed[\{]+([^}]*)[}]+"))
_DAYS = (datetime(2001, 1, 1), datetime(2002, 2, 2))


def messages(window: str, question: str) -> Prompt:
    return {"role": "system", "content": f"{_SYSTEM}\n{window}"}, {"role": "user", "content": question}


class OolongTask(OneCall, SizedTask):
    version = "1"
    own_protocols = (PROTOCOL,)
    metric = "score"
    official_budget = OFFICIAL_BUDGET

    def __init__(self, half: str, edition: str, protocol: str | None, data_dir: Path | None) -> None:
        values = {"budget": OFFICIAL_BUDGET, "least": _LEAST}
        super().__init__(f"oolong/{half}", edition, protocol, (PROTOCOL,), values)
        self._half = half
        parts = made.WINDOWS_VERSION, made.BANK, SENTENCES_VERSION
        windows = partial(Windows, self.id, self.version, partial(_asked, half), *parts)
        self._open = windows if edition == "builtin" else partial(self._official, data_dir)

    def _official(self, data_dir: Path | None) -> Rows:
        stem, file = FILES[self._half]
        paths = datafile.parts(data.data_folder("oolong", data_dir) / stem) or (
            data.need("oolong", file, f"{self.id} (official)", data_dir).path,
        )
        source = data.source_of(paths, f"oolongbench/oolong-{self._half}")
        read = self._synth if self._half == "synth" else self._real
        return Rows(self.id, source, partial(read, paths), OFFICIAL_BUDGET)

    def _synth(self, paths: Sequence[Path], ctx: int) -> Iterator[Asked]:
        length = longest_within(LENGTHS, ctx, f"{self.id} (official) has no window")
        some = False
        for where, row in (one for path in paths for one in tables.rows(path)):
            if tables.value(where, row, "context_len") != LENGTHS[length]:
                continue
            some, written, kind = True, tables.text(where, row, "answer"), tables.text(where, row, "answer_type")
            try:
                gold = synth_gold(written)
            except ValueError as error:
                raise UsageError(f"{where}: field 'answer' cannot be read: {error}") from error
            group = tables.text(where, row, "task_group")
            meta = {"gold": written, "kind": kind, "group": group, "length": length}
            said = f"Answer: {gold:%Y-%m-%d}" if kind == DATE else f"Answer: {gold}"
            yield _row(where, row, said, {**meta, "dataset": tables.text(where, row, "dataset")})
        if not some:
            raise UsageError(f"{self.id} at ctx {ctx} asks windows of {length}, of which {paths[0].parent} has none")

    def _real(self, paths: Sequence[Path], ctx: int) -> Iterator[Asked]:
        for where, row in (one for path in paths for one in tables.rows(path)):
            gold, episodes = str(tables.value(where, row, "answer")), tables.value(where, row, "episodes")
            meta = {"gold": gold, "kind": "", "group": tables.text(where, row, "question_type"), "episodes": episodes}
            yield _row(where, row, rf"\boxed{{{gold}}}", meta)

    def score(self, sample: Sample, answer: Completion) -> Score:
        gold, found = sample.meta["gold"], real_extract(answer.text)
        if self._half == "real":
            value = real_score(found, real_parsed(gold))
        else:
            found = synth_extract(answer.text)
            value = synth_score(found, synth_gold(gold), sample.meta["kind"])
        named = [sample.meta["group"], *([sample.meta["length"]] if "length" in sample.meta else [])]
        metrics = {"score": value, "exact": float(value == 1)} | {f"score {name}": value for name in named}
        return Score(metrics, extracted=found)

    def question_alone(self, sample: Sample) -> Prompt:
        """Without its window."""
        return {"role": "system", "content": _SYSTEM}, {"role": "user", "content": sample.meta["question"]}

    def _template(self) -> str:
        return f"{_SYSTEM}\n{{window}}\0{{question}}"


def _row(where: str, row: dict[str, Any], said: str, meta: dict[str, Any]) -> Asked:
    window, question = (tables.text(where, row, name) for name in ("context_window_text", "question"))
    return Asked(as_it_is(messages(window, question)), (said,), {"question": question, **meta})


class Windows(Made):
    def _too_small(self, ctx: int, minimum: int) -> ContextTooSmall:
        return super()._too_small(ctx, minimum + minimum // 6)  # other questions are longer


def _asked(half: str, rng: random.Random, index: int) -> Asked:
    begin, window = copy(rng), WINDOWS[half](rng)
    lines = window.lines()
    head = "".join(islice(lines, _LEAST))

    def build(more: Sequence[str]) -> Prompt:
        n = _LEAST + len(more)
        return messages(window.text(head + "".join(more), n), window.ask(n, copy(begin)).question)

    def told(n_more: int) -> tuple[tuple[str, ...], dict[str, Any]]:
        facts = window.ask(n := _LEAST + n_more, copy(begin))._asdict()
        return (facts.pop("said"),), {**facts, "lines": n}

    return Asked(build, window.longest, pieces=lines, told=told)


def synth_gold(written: str) -> Gold:
    """The right answer as a row has it, a list of Python values of which the first counts. ValueError where it is none."""
    if "datetime" in written:
        return datetime.strptime(written, "[datetime.date(%Y, %m, %d)]")
    try:
        found = ast.literal_eval(written)[0]
    except (SyntaxError, TypeError, LookupError, MemoryError, RecursionError) as error:
        raise ValueError(f"{written[:40]!r} is no list of answers") from error
    return found if isinstance(found, int) else str(found)


def synth_extract(answer: str) -> str:
    """Behind the last colon, without asterisks and square brackets; without one a short answer, or the last word."""
    if ":" not in answer:
        return answer if len(answer) < _SHORT else (answer.split() or [""])[-1]
    found = answer.split(":")[-1].strip().translate({ord(mark): None for mark in "*[]"})
    said = [phrase for phrase in COMPARISONS if phrase in found]
    return said[0] if said and len(found) >= _SHORT else found


def synth_score(found: str, gold: Gold, kind: str) -> float:
    if found == str(gold):
        return 1.0
    if found in COMPARISONS:
        return float(found in str(gold))
    if kind == NUMERIC:
        return _number(lambda: abs(int(str(gold)) - int(found)))
    return float(kind == DATE and isinstance(gold, datetime) and _names(found, gold))


def _names(text: str, gold: datetime) -> bool:
    """Whether it is that date. Officially what a date leaves out is today's; here such a date is none, whatever the day."""
    from dateutil import parser

    try:
        return {parser.parse(text, default=day) for day in _DAYS} == {gold}
    except (ValueError, OverflowError, TypeError):  # TypeError: compared or made with a time zone
        return False


def _number(away: Callable[[], int]) -> float:
    try:
        return float(CLOSE ** away())
    except (ValueError, OverflowError):  # no number, or one that is too far away to be computed
        return 0.0


def real_parsed(written: str) -> Parsed:
    """A number, else a list where there are commas, else a text."""
    try:
        return int(written)
    except ValueError:
        items = [item.strip() for item in written.split(",") if item.strip()]
        return items if "," in written else written


def real_extract(answer: str) -> Parsed:
    """What the box holds; without one the answer as a text."""
    found = next((match for form in _BOXED if (match := form.search(answer))), None)
    return real_parsed(found[1]) if found else answer


def real_score(found: Parsed, gold: Parsed) -> float:
    if isinstance(gold, int) and isinstance(found, int):
        return _number(lambda: abs(gold - found))
    if isinstance(gold, str) and isinstance(found, str):
        return float(gold.strip().lower() == found.strip().lower())
    if isinstance(gold, list) and isinstance(found, list):
        return len(set(gold) & set(found)) / len(gold) if gold else 0.0
    return 0.0


synth, real = (partial(OolongTask, half) for half in WINDOWS)
