"""Sources of MRCR questions, official and builtin, each sized to ctx.

Official: the rows as they are. There is no official generation budget: 2,000 tokens (HELM's; the longest answer has 3,889
characters), and more for an answer that takes more in the model's tokens. Builtin: conversations filled up to ctx; the
texts in it are the longer the longer ctx is, so that at 1k eight needles and some other turns find room.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from kleval.tasks import lexicon, texts
from kleval.tasks.fitting import budget_for, fill_by_characters
from kleval.tasks.mrcr import bins, conversations, dataset
from kleval.tasks.prose import SENTENCES_VERSION, essay
from kleval.tasks.sized import ALL, BuiltinData, OfficialData, Question, digest_of
from kleval.tokenization import count_given
from kleval.types import Tokenizer, Unfit

OFFICIAL_BUDGET = 2000
PROBES = 8
_LONGEST_TEXT_CHARS = 1200
_FILLED = 0.7  # of ctx, by needles, example and budget at most; the rest is for other turns
_SLACK = 1.02  # tokens of single messages may add up to a little more than the whole
_SLACK_TOKENS = 64


class Official(OfficialData):
    def __init__(self, task_id: str, n_needles: int, data_dir: Path | None) -> None:
        self._n_needles = n_needles
        self._source = dataset.find(task_id, n_needles, data_dir)
        super().__init__(task_id, self._source.revision, self._source.sha256)

    def questions(self, tokenizer: Tokenizer, ctx: int, seed: int) -> Iterator[Question | Unfit]:
        binner = bins.counter()
        for index, row in enumerate(dataset.read(self._source, self._n_needles)):
            yield self._question(index, row, tokenizer, ctx, binner)

    def _question(
        self, index: int, row: dataset.Row, tokenizer: Tokenizer, ctx: int, binner: Tokenizer | None
    ) -> Question | Unfit:
        answer_tokens = tokenizer.count(row.answer)
        budget = max(OFFICIAL_BUDGET, answer_tokens + 16)
        room = ctx - budget
        counted = chars = 0
        for message in row.messages:
            counted += tokenizer.count(message["content"])
            chars += len(message["content"])
            # A conversation of a million tokens need not be counted to its end to see that it does not fit into 8k.
            if counted > room * _SLACK + _SLACK_TOKENS:
                return self._unfit(index, counted * row.facts["n_chars"] // max(1, chars), budget, ctx, "about ")
        tokens = count_given(tokenizer, row.messages)
        if tokens > room:
            return self._unfit(index, tokens, budget, ctx)
        length = counted + answer_tokens
        if binner is not None:
            length = sum(binner.count(message["content"]) for message in row.messages) + binner.count(row.answer)
        meta = {
            "prefix": row.prefix,
            "n_needles": self._n_needles,
            **row.facts,
            "bin": bins.bin_of(length),
            "bin_tokens": length,
            "bin_tokenizer": (binner or tokenizer).name,
        }
        return Question(index, row.messages, (row.answer,), tokens, budget, meta)


class Builtin(BuiltinData):
    """documents: of the user's, which the other turns read from (edition `own`)."""

    def __init__(self, task_id: str, task_version: str, n_needles: int, documents: Path | None = None) -> None:
        self._n_needles = n_needles
        version = conversations.CONVERSATIONS_VERSION
        words = (lexicon.NAMES, lexicon.PEOPLE, lexicon.THINGS, lexicon.PLACES, lexicon.ABSTRACTS, conversations.KINDS)
        super().__init__(task_id, task_version, f"kleval {version}", digest_of(version, SENTENCES_VERSION, words))
        self._matter = conversations.EVALUATED
        if documents is not None:
            own = texts.read(documents)
            self._matter = conversations.Matter(passages=own.sentences())
            self.revision, self.digest = f"{own.name} in {self.revision}", digest_of(self.digest, own.digest)

    def questions(
        self, tokenizer: Tokenizer, ctx: int, seed: int, indices: Iterable[int] = ALL
    ) -> Iterator[Question | Unfit]:
        text_chars, budget = self._size(tokenizer, ctx, seed)
        for index in indices:
            yield self._question(index, tokenizer, ctx, seed, text_chars, budget)

    def _conversation(self, ctx: int, seed: int, index: object, text_chars: int) -> conversations.Conversation:
        return conversations.conversation(self._draws(ctx, seed, index).rng, self._n_needles, text_chars, self._matter)

    def _size(self, tokenizer: Tokenizer, ctx: int, seed: int) -> tuple[int, int]:
        """How long texts are, in characters, and the generation budget."""
        prose = essay(600)
        chars_per_token = len(prose) / max(1, tokenizer.count(prose))
        # As many other turns as needles, some more, and the answer's budget.
        wanted = min(_LONGEST_TEXT_CHARS, int(ctx * chars_per_token * _FILLED / (2 * self._n_needles + 8)))
        while True:
            probes = [self._conversation(ctx, seed, f"probe-{i}", wanted) for i in range(PROBES)]
            budget = budget_for(max(tokenizer.count(probe.reference) for probe in probes))
            bare = max(tokenizer.count(tokenizer.render(probe.messages(()))) for probe in probes)
            if bare + budget <= ctx * _FILLED or not wanted:
                return wanted, budget
            wanted = wanted // 2 if wanted > 60 else 0

    def _question(
        self, index: int, tokenizer: Tokenizer, ctx: int, seed: int, text_chars: int, budget: int
    ) -> Question:
        made = self._conversation(ctx, seed, index, text_chars)
        budget = max(budget, budget_for(tokenizer.count(made.reference)))
        filled = fill_by_characters(made.messages, made.fillers, tokenizer, ctx - budget)
        if isinstance(filled, int):
            raise self._too_small(ctx, filled + budget)
        meta = {
            "prefix": made.prefix,
            "n_needles": self._n_needles,
            "request": made.request,
            "wanted": made.wanted + 1,
            "desired_msg_index": 2 * made.positions(filled.n_pieces)[made.wanted] + 1,
            "total_messages": 2 * (filled.n_pieces + self._n_needles) + 1,
        }
        return Question(index, filled.prompt, (made.reference,), filled.tokens, budget, meta)
