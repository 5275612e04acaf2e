"""The tasks `oolong/synth` and `oolong/real`: one call, the window as the system's message, the question as the user's.

Official, synth: of the published rows those of the longest window of at most ctx; windows are called by a number of tokens that they
fill to about seven tenths. real: all rows that fit. Builtin: a window of kleval's own, as many lines as ctx holds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from kleval.tasks import data, datafile, tables
from kleval.tasks.base import OneCall
from kleval.tasks.fitting import budget_for, fill_by_characters
from kleval.tasks.oolong import made, scoring
from kleval.tasks.plain_editions import Asked, Rows, as_it_is
from kleval.tasks.prose import SENTENCES_VERSION
from kleval.tasks.sized import ALL, BuiltinData, Question, SizedTask, digest_of
from kleval.types import Completion, ContextTooSmall, Prompt, Sample, Score, Tokenizer, Unfit, UsageError

PROTOCOL = "oolong-adbf1cb"
OFFICIAL_BUDGET = 1024
WINDOWS: dict[str, type[made.Messages] | type[made.Transcript]] = {"synth": made.Messages, "real": made.Transcript}
FILES = {"synth": ("data/test", "data/test-*.parquet"), "real": ("dnd/test", "dnd/test.jsonl")}
LENGTHS = tuple(1 << power for power in range(10, 23))
_SYSTEM = "You are a helpful assistant."
_LEAST = 8  # lines of a window
Ask = Callable[[int], made.Asked]


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
        self._open = (
            partial(Builtin, self.id, self.version, WINDOWS[half])
            if edition == "builtin"
            else partial(self._official, data_dir)
        )

    def _official(self, data_dir: Path | None) -> Rows:
        stem, file = FILES[self._half]
        paths = datafile.parts(data.data_folder("oolong", data_dir) / stem) or (
            data.need("oolong", file, f"{self.id} (official)", data_dir).path,
        )
        source = data.source_of(paths, f"oolongbench/oolong-{self._half}")
        read = self._synth if self._half == "synth" else self._real
        return Rows(self.id, source, partial(read, paths), OFFICIAL_BUDGET)

    def _synth(self, paths: Sequence[Path], ctx: int) -> Iterator[Asked]:
        length = max((one for one in LENGTHS if one <= ctx), default=0)
        if not length:
            raise ContextTooSmall(f"{self.id} (official) has no window below {LENGTHS[0]} tokens", LENGTHS[0])
        some = False
        for where, row in (one for path in paths for one in tables.rows(path)):
            if tables.value(where, row, "context_len") != length:
                continue
            some, written, kind = True, tables.text(where, row, "answer"), tables.text(where, row, "answer_type")
            try:
                gold = scoring.synth_gold(written)
            except ValueError as error:
                raise UsageError(f"{where}: field 'answer' cannot be read: {error}") from error
            group = tables.text(where, row, "task_group")
            meta = {"gold": written, "kind": kind, "group": group, "length": f"{length >> 10}k"}
            said = f"Answer: {gold:%Y-%m-%d}" if kind == scoring.DATE else f"Answer: {gold}"
            yield _row(where, row, said, {**meta, "dataset": tables.text(where, row, "dataset")})
        if not some:
            raise UsageError(
                f"{self.id} at ctx {ctx} asks windows of {length} tokens, of which {paths[0].parent} has none"
            )

    def _real(self, paths: Sequence[Path], ctx: int) -> Iterator[Asked]:
        for where, row in (one for path in paths for one in tables.rows(path)):
            gold, episodes = str(tables.value(where, row, "answer")), tables.value(where, row, "episodes")
            meta = {"gold": gold, "kind": "", "group": tables.text(where, row, "question_type"), "episodes": episodes}
            yield _row(where, row, rf"\boxed{{{gold}}}", meta)

    def score(self, sample: Sample, answer: Completion) -> Score:
        gold, found = sample.meta["gold"], scoring.real_extract(answer.text)
        if self._half == "real":
            value = scoring.real_score(found, scoring.real_parsed(gold))
        else:
            found = scoring.synth_extract(answer.text)
            value = scoring.synth_score(found, scoring.synth_gold(gold), sample.meta["kind"])
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


class Builtin(BuiltinData):
    """window: makes one out of random numbers of its own."""

    def __init__(self, task_id: str, task_version: str, window: type[made.Messages] | type[made.Transcript]) -> None:
        version = made.WINDOWS_VERSION
        super().__init__(task_id, task_version, f"kleval {version}", digest_of(version, made.BANK, SENTENCES_VERSION))
        self._window = window

    def questions(
        self, tokenizer: Tokenizer, ctx: int, seed: int, indices: Iterable[int] = ALL
    ) -> Iterator[Question | Unfit]:
        budget = budget_for(max(map(tokenizer.count, self._window.longest)))
        for index in indices:
            draws = self._draws(ctx, seed, index)
            window = self._window(draws.rng)
            lines = window.lines()
            head = "".join(islice(lines, _LEAST))
            ask = partial(window.ask, seed=draws.seed)

            def build(more: Sequence[str], window: made.Window = window, ask: Ask = ask, head: str = head) -> Prompt:
                n = _LEAST + len(more)
                return messages(window.text(head + "".join(more), n), ask(n).question)

            filled = fill_by_characters(build, lines, tokenizer, ctx - budget)
            if isinstance(filled, int):
                raise self._too_small(ctx, filled + filled // 6 + budget)  # other questions are longer
            asked = ask(n := _LEAST + filled.n_pieces)
            meta = {
                "gold": asked.gold,
                "kind": asked.kind,
                "group": asked.group,
                "lines": n,
                "question": asked.question,
            }
            yield Question(index, filled.prompt, (asked.said,), filled.tokens, budget, meta)


synth, real = (partial(OolongTask, half) for half in WINDOWS)
