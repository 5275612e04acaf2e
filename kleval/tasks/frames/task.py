"""The task `frames/oracle`: one call, scored by exact match or by a second call to a judge.

Protocols. `exact-match`: what follows the last `the answer is`, compared without case, punctuation and articles; the
builtin edition's default, whose answers are single names and numbers. `judge`: the paper's autorater, asked of the model
that --judge-model names; the official edition's default, because official answers are phrases that can be said in many
ways and every published number is a judge's. Beside a judge's verdict exact match is reported too.

Builtin: questions over invented articles (`articles`) that take several of them, of kinds that FRAMES has.

chain       a fact of an article that is found through others: the mayor of the birthplace of ...
difference  the years between two events, one of them found through another article
first       which of two towns is older, each found through another article

Every step goes through names that stand in one article alone, so that nothing but the right articles answers. They stand among others
of the same corpus as far as ctx goes, in random order; one corpus per ctx and seed.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from kleval.tasks import articles as invented
from kleval.tasks import lexicon
from kleval.tasks.answers import contains
from kleval.tasks.articles import ARTICLES_VERSION, Article, corpus
from kleval.tasks.base import JUDGE_BUDGET, Judged, as_prompt
from kleval.tasks.fitting import budget_for, fill
from kleval.tasks.frames import official
from kleval.tasks.frames.official import answer_sentence, context, judge_prompt, question_prompt
from kleval.tasks.likelihood import without
from kleval.tasks.plain_editions import Asked, Filling
from kleval.tasks.sized import Question, SizedTask
from kleval.types import ContextTooSmall, Prompt, Sample, Score, Tokenizer

EXACT_MATCH = "exact-match"
JUDGE = "judge"
HOPS_VERSION = "hops-1"
_TRIES, _OTHERS = 1000, 19  # to draw a question, and another where it does not fit
_FOUNDED = 1
_PROBES, _PROBE_ARTICLES = 32, 64
_SPARE, _FILLED = 1.5, 7 / 8
_WORDS = (lexicon.THINGS, lexicon.PLACES, lexicon.NAMES, lexicon.ADJECTIVES, lexicon.NUMBERS)

# How many articles a kind takes.
KINDS = {"chain-2": 2, "chain-3": 3, "difference": 3, "chain-4": 4, "first": 4}


class FramesTask(Judged, SizedTask):
    version = "1"
    reply_says = "decision"
    own_protocols = (EXACT_MATCH,)
    official_budget = official.BUDGET

    def __init__(self, edition: str, protocol: str | None, data_dir: Path | None) -> None:
        known = (JUDGE, EXACT_MATCH) if edition == "official" else (EXACT_MATCH, JUDGE)
        values = {"budget": official.BUDGET, "judge_budget": JUDGE_BUDGET}
        super().__init__("frames/oracle", edition, protocol, known, values)
        self.metric = "accuracy" if self.needs_judge else "exact_match"
        made = partial(Builtin, self.id, self.version)
        self._open = made if edition == "builtin" else partial(official.rows, self.id, data_dir)

    def _judge_prompt(self, sample: Sample, answer: str) -> Prompt:
        text = judge_prompt(sample.meta["question"], answer, sample.references[0])
        return ({"role": "user", "content": text},)

    def _verdict(self, reply: str) -> bool | None:
        return official.decision(reply)

    def _score(self, sample: Sample, answer: str, right: bool | None) -> Score:
        extracted = official.extract_answer(answer)
        judged = {} if right is None else {"accuracy": float(right)}
        matched = {"exact_match": official.exact_match(extracted, sample.references)}
        return Score({**judged, **matched, "contains": contains(answer, sample.references)}, extracted=extracted)

    def question_alone(self, sample: Sample) -> Prompt:
        """Without its articles."""
        return without(sample.prompt, question_prompt("{context}", "{question}"), "{context}")

    def _template(self) -> str:
        prompts = [question_prompt("{context}", "{question}")]
        if self.needs_judge:
            prompts.append(judge_prompt("{question}", "{predicted}", "{truth}"))
        return "\0".join(prompts)


@dataclass(frozen=True, slots=True)
class Hops:
    """gold: positions of the articles that together answer."""

    kind: str
    question: str
    answers: tuple[str, ...]
    gold: tuple[int, ...]


def ask(rng: random.Random, articles: Sequence[Article], kind: str) -> Hops:
    """A question of that kind, all of its articles distinct."""
    for _ in range(_TRIES):
        made = _ask(rng, articles, kind)
        if made is not None and len(set(made.gold)) == len(made.gold):
            return made
    raise ValueError(f"{len(articles)} articles are too few for a question of the kind {kind}")


def _ask(rng: random.Random, articles: Sequence[Article], kind: str) -> Hops | None:
    if kind.startswith("chain-"):
        gold, phrase = _walk(articles, rng.randrange(len(articles)), int(kind[-1]))
        fact = rng.choice(articles[gold[-1]].facts[1:])
        return Hops(kind, fact.bridge.replace("the town of {}", "{}").format(phrase), fact.answers, gold)
    gold, phrase = _walk(articles, rng.randrange(len(articles)), 2)
    if kind == "difference":
        other = rng.randrange(len(articles))
        (first, event), (second, other_event) = (_event(articles[i]) for i in (gold[-1], other))
        years = abs(first - second)
        question = f"How many years lie between {event.format(phrase)} and {other_event.format(articles[other].title)}?"
        return Hops(kind, question, (str(years), f"{years} years"), (*gold, other)) if years else None
    others, other_phrase = _walk(articles, rng.randrange(len(articles)), 2)
    towns = [articles[gold[-1]], articles[others[-1]]]
    if any(town.kind != "town" for town in towns):
        return None
    founded = [int(town.facts[_FOUNDED].answers[0]) for town in towns]
    if founded[0] == founded[1]:
        return None
    question = f"Which town was founded first, {phrase} or {other_phrase}?"
    return Hops(kind, question, (towns[founded[1] < founded[0]].title,), (*gold, *others))


def _walk(articles: Sequence[Article], start: int, n: int) -> tuple[tuple[int, ...], str]:
    """(n articles, each named by the one before, how the last is called without its name)."""
    path, phrase = [start], articles[start].title
    while len(path) < n:
        article = articles[path[-1]]
        phrase = invented.KINDS[article.kind]["through"].format(phrase)
        path.append(article.link)
    return tuple(path), phrase


def _event(article: Article) -> tuple[int, str]:
    which, phrase = invented.KINDS[article.kind]["event"]
    return int(article.facts[which].answers[0]), phrase


class Builtin(Filling):
    def __init__(self, task_id: str, task_version: str) -> None:
        super().__init__(task_id, task_version, ARTICLES_VERSION, HOPS_VERSION, _WORDS)
        self.revision = f"kleval {ARTICLES_VERSION}, {HOPS_VERSION}"

    def _maker(self, tokenizer: Tokenizer, ctx: int, seed: int) -> Callable[[int], Question]:
        counts = [tokenizer.count(_document(article)) for article in corpus(_PROBE_ARTICLES, f"frames/{seed}")]
        # Articles enough to fill ctx, in powers of two so that neighbouring lengths share a corpus.
        wanted = _PROBE_ARTICLES + int(_SPARE * ctx / (sum(counts) / len(counts)))
        articles = corpus(1 << (wanted - 1).bit_length(), f"frames/{seed}")
        room = _FILLED * ctx - tokenizer.count(tokenizer.render(as_prompt(tokenizer, question_prompt("", ""))))
        kinds = [kind for kind, n in KINDS.items() if n * max(counts) <= room] or ["chain-2"]

        def draws(index: object) -> random.Random:
            return self._draws(ctx, seed, index).rng

        probes = (ask(draws(f"probe-{i}"), articles, kinds[i % len(kinds)]) for i in range(_PROBES))
        least = max(_budget(tokenizer, probe) for probe in probes)

        def question(index: int) -> Question:
            rng, budget, errors = draws(index), least, []
            # Articles differ in length: where these do not fit, others of the shortest kind may.
            for kind in (kinds[index % len(kinds)], *["chain-2"] * _OTHERS):
                hops = ask(rng, articles, kind)
                budget = max(budget, _budget(tokenizer, hops))
                try:
                    return self._sized(index, _among_others(rng, articles, hops), tokenizer, ctx, budget, fill)
                except ContextTooSmall as error:
                    errors.append(error)
            raise min(errors, key=lambda error: error.minimum_tokens)

        return question


def _among_others(rng: random.Random, articles: Sequence[Article], hops: Hops) -> Asked:
    gold = [_document(articles[i]) for i in hops.gold]
    places = {text: rng.random() for text in gold}
    others = [article for i, article in enumerate(articles) if i not in hops.gold]
    rng.shuffle(others)

    def pieces() -> Iterator[str]:
        for article in others:
            text = _document(article)
            places[text] = rng.random()
            yield text

    def build(taken: Sequence[str]) -> str:
        return question_prompt("\n".join(sorted([*gold, *taken], key=places.__getitem__)), hops.question)

    def told(n_others: int) -> tuple[tuple[str, ...], dict[str, Any]]:
        titles = [articles[i].title for i in hops.gold]
        meta = {"kind": hops.kind, "documents": n_others + len(gold), "gold": titles, "question": hops.question}
        return hops.answers, meta

    return Asked(build, hops.answers, pieces=pieces(), told=told)


def _document(article: Article) -> str:
    return context(((article.title, article.text),))


def _budget(tokenizer: Tokenizer, hops: Hops) -> int:
    return budget_for(max(tokenizer.count(answer_sentence(answer)) for answer in hops.answers))


oracle = FramesTask
