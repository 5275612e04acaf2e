"""Sources of FRAMES questions, official and builtin, each sized to ctx.

Official: a question with its articles, whole or not at all. Builtin: a question with the articles that answer it, among
others of the same corpus as far as ctx goes, in random order; one corpus per ctx and seed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from kleval.tasks import lexicon
from kleval.tasks.articles import ARTICLES_VERSION, Article, corpus
from kleval.tasks.base import as_prompt
from kleval.tasks.fitting import Filled, budget_for, fill
from kleval.tasks.frames import dataset, hops
from kleval.tasks.frames.prompts import answer_sentence, context, question_prompt
from kleval.tasks.sized import ALL, BuiltinData, OfficialData, Question, digest_of
from kleval.tokenization import count_given
from kleval.types import Prompt, Tokenizer, Unfit

OFFICIAL_BUDGET = 1024
PROBES = 32
_PROBE_ARTICLES = 64
_SPARE = 1.5
_FILLED = 7 / 8
_TRIES = 20
_FAR = 2  # times the room: what is farther beyond it is estimated


class Official(OfficialData):
    def __init__(self, task_id: str, data_dir: Path | None) -> None:
        self._source = dataset.find(data_dir)
        super().__init__(task_id, self._source.revision, self._source.sha256)

    def questions(self, tokenizer: Tokenizer, ctx: int, seed: int) -> Iterator[Question | Unfit]:
        for row in dataset.read(self._source):
            yield self._question(row, tokenizer, ctx)

    def _question(self, row: dataset.Row, tokenizer: Tokenizer, ctx: int) -> Question | Unfit:
        room = ctx - OFFICIAL_BUDGET
        counted = tokenizer.count(tokenizer.render(as_prompt(tokenizer, question_prompt("", row.question))))
        chars = 0
        for _, text in row.documents:
            counted += tokenizer.count(text)
            chars += len(text)
            # Articles of a hundred thousand tokens need not all be counted to see that they do not fit into 8k.
            if counted > _FAR * max(0, room):
                whole = sum(len(one) for _, one in row.documents)
                return self._unfit(row.index, counted * whole // max(1, chars), OFFICIAL_BUDGET, ctx, "about ")
        prompt = as_prompt(tokenizer, question_prompt(context(row.documents), row.question))
        tokens = count_given(tokenizer, prompt)
        if tokens > room:
            return self._unfit(row.index, tokens, OFFICIAL_BUDGET, ctx)
        meta = {"documents": len(row.documents), "reasoning": row.reasoning, "question": row.question}
        return Question(row.index, prompt, (row.answer,), tokens, OFFICIAL_BUDGET, meta)


class Builtin(BuiltinData):
    def __init__(self, task_id: str, task_version: str) -> None:
        words = (lexicon.THINGS, lexicon.PLACES, lexicon.NAMES, lexicon.ADJECTIVES, lexicon.NUMBERS)
        digest = digest_of(ARTICLES_VERSION, hops.HOPS_VERSION, words)
        super().__init__(task_id, task_version, f"kleval {ARTICLES_VERSION}, {hops.HOPS_VERSION}", digest)

    def questions(
        self, tokenizer: Tokenizer, ctx: int, seed: int, indices: Iterable[int] = ALL
    ) -> Iterator[Question | Unfit]:
        few = corpus(_PROBE_ARTICLES, f"frames/{seed}")
        counts = [tokenizer.count(_document(article)) for article in few]
        articles = corpus(_corpus_size(ctx, sum(counts) / len(counts)), f"frames/{seed}")
        bare = tokenizer.count(tokenizer.render(as_prompt(tokenizer, question_prompt("", ""))))
        room = _FILLED * ctx - bare
        kinds = [kind for kind, n in hops.KINDS.items() if n * max(counts) <= room] or ["chain-2"]
        budget = self._budget(tokenizer, articles, kinds, ctx, seed)
        for index in indices:
            yield self._question(index, kinds[index % len(kinds)], articles, tokenizer, ctx, seed, budget)

    def _budget(self, tokenizer: Tokenizer, articles: Sequence[Article], kinds: list[str], ctx: int, seed: int) -> int:
        longest = 0
        for probe in range(PROBES):
            rng = self._draws(ctx, seed, f"probe-{probe}").rng
            asked = hops.ask(rng, articles, kinds[probe % len(kinds)])
            longest = max(longest, _answer_tokens(tokenizer, asked.answers))
        return budget_for(longest)

    def _question(
        self, index: int, kind: str, articles: Sequence[Article], tokenizer: Tokenizer, ctx: int, seed: int, budget: int
    ) -> Question:
        rng = self._draws(ctx, seed, index).rng
        least = ctx
        for attempt in range(_TRIES):
            # Articles differ in length: where these do not fit, others of the shortest kind may.
            asked = hops.ask(rng, articles, kind if attempt == 0 else "chain-2")
            budget = max(budget, budget_for(_answer_tokens(tokenizer, asked.answers)))
            places = {_document(articles[i]): rng.random() for i in asked.gold}
            others = [i for i in range(len(articles)) if i not in asked.gold]
            rng.shuffle(others)

            def pieces(others: list[int] = others, places: dict[str, float] = places) -> Iterator[str]:
                for i in others:
                    text = _document(articles[i])
                    places[text] = rng.random()
                    yield text

            def build(taken: Sequence[str], asked: hops.Asked = asked, places: dict[str, float] = places) -> Prompt:
                texts = [*(_document(articles[i]) for i in asked.gold), *taken]
                text = "\n".join(sorted(texts, key=places.__getitem__))
                return as_prompt(tokenizer, question_prompt(text, asked.question))

            filled = fill(build, pieces(), tokenizer, ctx - budget)
            if isinstance(filled, Filled):
                meta = {
                    "kind": asked.kind,
                    "documents": filled.n_pieces + len(asked.gold),
                    "gold": [articles[i].title for i in asked.gold],
                    "question": asked.question,
                }
                return Question(index, filled.prompt, asked.answers, filled.tokens, budget, meta)
            least = filled + budget if attempt == 0 else min(least, filled + budget)
        raise self._too_small(ctx, least)


def _corpus_size(ctx: int, tokens_each: float) -> int:
    """Articles enough to fill ctx, in powers of two so that neighbouring lengths share a corpus."""
    wanted = _PROBE_ARTICLES + int(_SPARE * ctx / tokens_each)
    return 1 << (wanted - 1).bit_length()


def _document(article: Article) -> str:
    return context(((article.title, article.text),))


def _answer_tokens(tokenizer: Tokenizer, answers: Sequence[str]) -> int:
    return max(tokenizer.count(answer_sentence(answer)) for answer in answers)
