"""RULER as lm-eval 0.4.13 makes it, its defects included: for comparison with numbers that were made there.

Source: PyPI lm-eval 0.4.13, lm_eval/tasks/ruler/{prepare_niah,vt_utils,cwe_utils,fwe_utils,qa_utils,common_utils}.py
and lm_eval/api/task.py (how question and answer prefix are joined). What differs from NVIDIA's scripts: the size is
found by growing in steps, with draws of its own; lists of common words have no demonstration, though the length counts
one; noise and chain of variable tracking are joined otherwise, its prefix says "assgined", its demonstration has a random
value; coded texts leave no room for their answer; essays and documents are not repeated; of several references of a
question each counts for its part.

The states are those of `lm_eval --tasks ONE_TASK` with its default seeds (Python 0, numpy 1234): what the tasks of a
group draw before a task is not reproduced. `--seed` does not change them. Special tokens, which lm-eval counts, are not
counted.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, MutableSequence
from dataclasses import replace
from functools import partial
from typing import Any

from kleval.tasks.draws import Draws
from kleval.tasks.ruler import cwe, niah, qa, vt
from kleval.tasks.ruler.form import DoesNotFit, Measure
from kleval.tasks.ruler.haystack import Essays
from kleval.tasks.ruler.official import falling, fwe_stream, settle
from kleval.tasks.ruler.spec import NOISE, Draft, Needles, Spec
from kleval.tasks.ruler.words import all_words
from kleval.types import UsageError

PYTHON_SEED, NUMPY_SEED, SHUFFLE_SEED = 0, 1234, 42
Count = Callable[[str], int]

_VT_PREFIX = vt.PREFIX.replace("assigned", "assgined")


class _Draws(Draws):
    """Draws with lm-eval's seeds: Python's and numpy's differ, and every shuffle is one of seed 42. shuffles: what they all come of
    instead."""

    def __init__(self, shuffles: random.Random | None = None) -> None:
        import numpy as np

        super().__init__(SHUFFLE_SEED)
        self.rng, self.numbers = random.Random(PYTHON_SEED), np.random.RandomState(NUMPY_SEED)
        self._shuffles = shuffles

    def shuffle(self, items: MutableSequence[Any]) -> None:
        (self._shuffles or random.Random(SHUFFLE_SEED)).shuffle(items)


def stream(
    spec: Spec, count: Count, ctx: int, essays: Essays | None = None, corpus: qa.Corpus | None = None
) -> Iterator[Draft]:
    """Drafts at ctx in lm-eval's order; `prefix` begins with what it puts between question and answer prefix.

    count: tokens of a text. DoesNotFit where lm-eval fails or never ends.
    """
    limit = ctx - spec.budget

    def whole(drawn: Draft) -> int:
        return count(drawn.input + drawn.prefix)

    if spec.needles is not None:
        made = _niah(spec.needles, count, ctx, limit, essays)
    elif corpus is not None:
        made = _qa(corpus, count, limit)
    elif spec.kind == "fwe":
        made = (fitted.draft for fitted in fwe_stream(whole, _Draws(), ctx))
    else:
        made = _cwe(count, whole, ctx, limit) if spec.kind == "cwe" else _vt(count, whole, limit, spec.budget)
    between = "\n\n" if spec.kind == "cwe" else " "
    for draft in made:
        yield replace(draft, prefix=between + draft.prefix.strip())


def _grown(
    draft: Callable[[int], Draft],
    tokens: Measure,
    step: int,
    limit: int,
    first: int = 0,
    most: int | None = None,
    over: int = 0,
) -> int:
    """The search for a size: by steps, until a question is too long, then one step back; `most` once a size is beyond most - over.

    first: the size to begin with, else the step.
    """
    size, found = first or step, 0
    while found < limit:
        try:
            found = tokens(draft(size))
        except (ValueError, IndexError) as error:
            raise DoesNotFit from error
        if found > limit:
            return size - step
        if most is not None and size > most - over:
            return most
        if size > limit:
            raise UsageError(f"the tokenizer counts {found} tokens for size {size}: it cannot measure lengths")
        size += step
    return size


def _niah(needles: Needles, count: Count, ctx: int, limit: int, essays: Essays | None) -> Iterator[Draft]:
    step, draws, hidden = niah.step(needles, ctx), _Draws(), needles.keys * needles.values
    prose, most = (None, None) if essays is None else (niah.Prose(essays.sentences, "words"), essays.n_words)

    def draft(size: int) -> Draft:
        return niah.draft(needles, prose, draws, size if most is None else min(size, most))

    grown = _grown(draft, lambda d: count(d.input + " ".join(d.answers)), step, limit, max(step, hidden), most)
    while True:
        yield settle(draft, lambda d: count(d.input), limit, range(max(grown, hidden), 0, -step)).draft


def _vt(count: Count, whole: Measure, limit: int, budget: int) -> Iterator[Draft]:
    draws = _Draws()

    def endless(letters: int, step: int, limit: int) -> Iterator[Draft]:
        draft = partial(_vt_question, draws, letters)
        size = _grown(draft, lambda d: count(f"{d.input}{d.prefix} {list(d.answers)}"), step, limit)
        while True:
            yield settle(draft, whole, limit, falling(size, step)).draft

    demo = vt.solved(next(endless(3, 5, vt.DEMO_TOKENS - budget))) + "\n"
    for drawn in endless(5, 10, limit - count(demo)):
        yield replace(drawn, input=f"{vt.renamed(demo, draws)}\n\n{drawn.input}")


def _vt_question(draws: Draws, letters: int, size: int) -> Draft:
    names, value, chain = vt.chain(draws, letters)
    lines = [NOISE + "\n"] * size
    if size <= len(chain):
        # Too few lines of noise for the chain: lm-eval falls back to sentences.
        pieces = [piece for line in lines for piece in line.split(".")]
        lines = [piece + "." if piece.strip() else piece for piece in pieces]
        if len(lines) <= len(chain):
            chain = chain[: max(len(lines) - 1, 0)]
    vt.hide(draws, chain, lines)
    asked = vt.TEMPLATE.format(context=" ".join(lines).replace(". \n", ".\n"), value=value)
    prefix = _VT_PREFIX.format(count=vt.HOPS + 1, value=value)
    return Draft(asked, prefix, tuple(names), {"size": size, "unit": "lines"})


def _cwe(count: Count, whole: Measure, ctx: int, limit: int) -> Iterator[Draft]:
    words, shuffles = len(all_words()), random.Random(SHUFFLE_SEED)
    shuffles.shuffle(list(all_words()))  # the vocabulary's is the first of them
    draws = _Draws(shuffles)
    made = cwe.CommonWords(cwe.SHORT if ctx < 4096 else cwe.LONG, SHUFFLE_SEED, lambda: ("", all_words()))

    def draft(size: int, searched: bool = False) -> Draft:
        demo, shown, asked, answers = made.parts(draws, size)
        example = f"{demo}{cwe.PREFIX}{cwe.numbered(shown)}\n" if searched else ""
        return Draft(example + asked, cwe.PREFIX, tuple(answers), {"size": size})

    def tokens(drawn: Draft) -> int:
        return count(f"{drawn.input}{drawn.prefix} {cwe.numbered(drawn.answers)}")

    size = _grown(partial(draft, searched=True), tokens, cwe.STEP, limit, most=words, over=10)
    if size < cwe.COMMON:
        raise DoesNotFit
    while True:
        yield settle(draft, whole, limit, falling(size, cwe.STEP)).draft


def _qa(corpus: qa.Corpus, count: Count, limit: int) -> Iterator[Draft]:
    draws, documents = _Draws(), list(corpus.documents)

    def draft(index: int, size: int) -> Draft:
        question = corpus.questions[index]
        chosen = documents  # shuffled in place: from there on lm-eval's numbers mean other documents
        if size < len(documents):
            chosen = [documents[i] for i in qa.drawn(corpus, question, draws, max(size, len(question.gold)))]
        draws.shuffle(chosen)
        return qa.asked(question, chosen, {})

    first, most = partial(draft, 0), len(documents)
    size = _grown(first, lambda d: count(f"{d.input} {list(d.answers)}"), qa.STEP, limit, most=most, over=10)
    for index, question in enumerate(corpus.questions):
        least = len(question.gold)
        sizes = [*range(max(size, least, 1), least, -qa.STEP), least]
        yield settle(partial(draft, index), lambda d: count(d.input), limit, sizes).draft
    raise qa.no_more(corpus)
