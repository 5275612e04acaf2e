"""Questions and the documents that answer them, for the two qa tasks.

Source: NVIDIA/RULER @ c3f5e3b, scripts/data/synthetic/qa.py. squad.json is SQuAD v2.0 dev, hotpotqa.json HotpotQA dev
in the distractor setting, both under their official names and in their official shapes; `generated` makes articles.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

from kleval.tasks import datafile
from kleval.tasks.tables import is_unicode
from kleval.types import UsageError

_Asked = list[tuple[str, tuple[str, ...]]]  # questions, each with its answers


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


@cache
def read_corpus(dataset: str, file: Path) -> Corpus:
    """`squad` or `hotpotqa` from the official file."""
    try:
        data = datafile.whole_json(file)
        made = _squad(data) if dataset == "squad" else _hotpotqa(data)
        for i, asked in enumerate(made.questions):
            if not asked.answers or not asked.gold or not all(map(_is_text, (asked.query, *asked.answers))):
                raise ValueError(f"question {i} lacks a text, an answer or a document")
        if not all(map(_is_text, made.documents)):
            raise ValueError("a document is no text")
    except (UsageError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UsageError(f"{file} does not have the shape of the official {dataset} file ({error!r})") from error
    return made


def _is_text(found: Any) -> bool:
    return isinstance(found, str) and is_unicode(found)


def _squad(data: dict[str, Any]) -> Corpus:
    def asked(paragraph: dict[str, Any]) -> _Asked:
        answerable = (qa for qa in paragraph["qas"] if not qa["is_impossible"])
        return [(qa["question"], tuple(a["text"] for a in qa["answers"])) for qa in answerable]

    articles = [[(p["context"], asked(p)) for p in article["paragraphs"]] for article in data["data"]]
    return _of_paragraphs("squad", articles)


def _of_paragraphs(name: str, articles: Sequence[Sequence[tuple[str, _Asked]]]) -> Corpus:
    """articles: their paragraphs, each a document, with what it answers; the others of its article are related to it."""
    documents = sorted({text for article in articles for text, _ in article})
    number = {text: i for i, text in enumerate(documents)}
    questions = []
    for article in articles:
        all_of_it = [number[text] for text, _ in article]
        for gold, (_, asked) in zip(all_of_it, article, strict=True):
            related = tuple(i for i in all_of_it if i != gold)
            questions += [Question(query, answers, (gold,), related) for query, answers in asked]
    return Corpus(name, documents, questions)


def _hotpotqa(data: list[dict[str, Any]]) -> Corpus:
    def text(title: str, sentences: list[str]) -> str:
        return f"{title}\n{''.join(sentences)}"

    documents = sorted({text(t, s) for row in data for t, s in row["context"]})
    number = {d: i for i, d in enumerate(documents)}
    questions = [
        Question(row["question"], (row["answer"],), tuple(number[text(t, s)] for t, s in row["context"]))
        for row in data
    ]
    return Corpus("hotpotqa", documents, questions)


@cache
def generated(hops: Literal[1, 2], documents: int, seed: str) -> Corpus:
    """About that many of kleval's own articles (or some more), with questions that one (hops=1) or two of them answer.

    One hop takes the shape of SQuAD, where an article's two paragraphs are related documents; two hops have no other
    articles to go with the two, so that short contexts have room for them.
    """
    from kleval.tasks import articles

    if hops == 1:
        return _of_paragraphs(
            "kleval articles, one hop",
            [
                [
                    (text, [(fact.bridge.format(article.title), fact.answers) for fact in article.facts[part::2]])
                    for part, text in enumerate(article.paragraphs)
                ]
                for article in articles.corpus(-(-documents // 2), seed)
            ],
        )
    made = articles.corpus(documents, seed)
    asked = [Question(q.question, tuple(q.answers), tuple(q.gold)) for q in articles.questions(made, seed, hops)]
    return Corpus("kleval articles, two hops", [f"{a.title}\n{a.text}" for a in made], asked)
