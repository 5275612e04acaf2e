"""Question answering over documents, most of them beside the point; the questions with their documents, out of files or made.

Source: NVIDIA/RULER @ c3f5e3b, scripts/data/synthetic/qa.py. Question i of the file is sample i; its documents are
joined by others drawn at random, all shuffled by a state of fixed seed (so that officially the answer lies at one place
for each number of documents), and repeated when a length needs more than there are. squad.json is SQuAD v2.0 dev, hotpotqa.json
HotpotQA dev in the distractor setting, both under their official names and in their official shapes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from kleval.tasks import articles, datafile
from kleval.tasks.draws import Draws, own_draws
from kleval.tasks.ruler.spec import TEXTS, Draft
from kleval.tasks.tables import is_unicode
from kleval.types import UsageError

TEMPLATE, PREFIX = TEXTS["qa"]
STEP = 10
_Asked = tuple[
    str, Sequence[str], Sequence[str], Sequence[str]
]  # a question, answers, documents that must be there, related ones


@dataclass(frozen=True, slots=True)
class Question:
    """gold: documents that must be there. related: documents to add before any other."""

    query: str
    answers: tuple[str, ...]
    gold: tuple[int, ...]
    related: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Corpus:
    """name: where it comes from."""

    name: str
    documents: list[str]
    questions: list[Question]


def drawn(corpus: Corpus, question: Question, draws: Draws, size: int) -> list[int]:
    """`size` documents: those that must be there, related ones, any others. ValueError where they are fewer than the first."""
    gold, related = [*question.gold], [*question.related]
    if size - len(gold) <= len(related):
        return gold + draws.rng.sample(related, size - len(gold))
    taken = {*gold, *related}
    others = [i for i in range(len(corpus.documents)) if i not in taken]
    return gold + related + draws.rng.sample(others, size - len(gold) - len(related))


def asked(question: Question, documents: Sequence[str], meta: dict[str, object]) -> Draft:
    context = "\n\n".join(f"Document {i}:\n{text}" for i, text in enumerate(documents, 1))
    told = {"size": len(documents), "unit": "documents", **meta}
    return Draft(TEMPLATE.format(context=context, query=question.query), PREFIX, question.answers, told)


def no_more(corpus: Corpus) -> UsageError:
    return UsageError(f"{corpus.name} has {len(corpus.questions)} questions: ask for that many samples at most")


def draft(corpus: Corpus, any_place: bool, draws: Draws, size: int, index: int) -> Draft:
    """size: documents. any_place: shuffled by a state of its own per question, in place of the fixed one."""
    if index >= len(corpus.questions):
        raise no_more(corpus)
    question, total = corpus.questions[index], len(corpus.documents)
    chosen = [i % total for i in range(size)] if size >= total else drawn(corpus, question, draws, size)
    (own_draws("ruler/qa", draws.seed, index, size) if any_place else draws).shuffle(chosen)
    depths = [round(100 * i / len(chosen), 1) for i, d in enumerate(chosen) if d in question.gold]
    return asked(question, [corpus.documents[i] for i in chosen], {"depth_percent": depths})


@cache
def read_corpus(dataset: str, file: Path) -> Corpus:
    """`squad` or `hotpotqa` from the official file."""

    try:
        data = datafile.whole_json(file)
        made = _squad(data) if dataset == "squad" else _hotpotqa(data)
        for i, asked in enumerate(made.questions):
            if not asked.answers or not asked.gold or not _are_texts(asked.query, *asked.answers):
                raise ValueError(f"question {i} lacks a text, an answer or a document")
        if not _are_texts(*made.documents):
            raise ValueError("a document is no text")
    except (UsageError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UsageError(f"{file} does not have the shape of the official {dataset} file ({error!r})") from error
    return made


def _are_texts(*found: Any) -> bool:
    return all(isinstance(text, str) and is_unicode(text) for text in found)


def _squad(data: dict[str, Any]) -> Corpus:
    """Other paragraphs of a question's article are related to it."""
    asked, every = list[_Asked](), set[str]()
    for article in data["data"]:
        texts = [paragraph["context"] for paragraph in article["paragraphs"]]
        every.update(texts)
        for paragraph, text in zip(article["paragraphs"], texts, strict=True):
            others = [other for other in texts if other != text]
            answerable = [one for one in paragraph["qas"] if not one["is_impossible"]]
            asked += [(one["question"], [a["text"] for a in one["answers"]], [text], others) for one in answerable]
    return _corpus("squad", every, asked)


def _hotpotqa(data: list[dict[str, Any]]) -> Corpus:
    texts = [[f"{title}\n{''.join(sentences)}" for title, sentences in row["context"]] for row in data]
    asked: list[_Asked] = [(row["question"], [row["answer"]], own, []) for row, own in zip(data, texts, strict=True)]
    return _corpus("hotpotqa", {text for own in texts for text in own}, asked)


def _corpus(name: str, texts: set[str], asked: Sequence[_Asked]) -> Corpus:
    documents = sorted(texts)
    number = {text: i for i, text in enumerate(documents)}
    questions = [
        Question(query, tuple(answers), tuple(number[text] for text in gold), tuple(number[text] for text in related))
        for query, answers, gold, related in asked
    ]
    return Corpus(name, documents, questions)


@cache
def generated(hops: Literal[1, 2], documents: int, seed: str) -> Corpus:
    """About that many of kleval's own articles (or some more), with questions that one (hops=1) or two of them answer.

    One hop takes the shape of SQuAD, where an article's two paragraphs are related documents; two hops have no other
    articles to go with the two, so that short contexts have room for them.
    """
    if hops == 2:
        made = articles.corpus(documents, seed)
        linked = [Question(q.question, q.answers, q.gold) for q in articles.questions(made, seed, hops)]
        return Corpus("kleval articles, two hops", [f"{a.title}\n{a.text}" for a in made], linked)
    made = articles.corpus(-(-documents // 2), seed)
    asked: list[_Asked] = [
        (fact.bridge.format(a.title), fact.answers, [a.paragraphs[part]], [a.paragraphs[1 - part]])
        for a in made
        for part in range(2)
        for fact in a.facts[part::2]
    ]
    return _corpus("kleval articles, one hop", {text for a in made for text in a.paragraphs}, asked)
