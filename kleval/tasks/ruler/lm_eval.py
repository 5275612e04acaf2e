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
import string
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING

from kleval.tasks.draws import Draws
from kleval.tasks.ruler import cwe, fwe, niah, qa, vt
from kleval.tasks.ruler.corpus import Corpus
from kleval.tasks.ruler.haystack import Essays
from kleval.tasks.ruler.official import ATTEMPTS, DoesNotFit
from kleval.tasks.ruler.spec import NOISE, Draft, Needles, Spec
from kleval.tasks.ruler.words import all_words
from kleval.types import UsageError

if TYPE_CHECKING:
    import numpy as np

PYTHON_SEED, NUMPY_SEED, SHUFFLE_SEED = 0, 1234, 42
Count = Callable[[str], int]

_VT_PREFIX = vt.PREFIX.replace("assigned", "assgined")
_VT_NOISE = NOISE + "\n"


@dataclass(slots=True)
class States(Draws):
    """Draws with lm-eval's seeds: Python's and numpy's differ, and every shuffle is one of seed 42."""

    seed: int = SHUFFLE_SEED
    rng: random.Random = field(default_factory=lambda: random.Random(PYTHON_SEED))
    _numbers: np.random.RandomState | None = None

    @property
    def numbers(self) -> np.random.RandomState:
        if self._numbers is None:
            import numpy as np

            self._numbers = np.random.RandomState(NUMPY_SEED)
        return self._numbers


def stream(
    spec: Spec, count: Count, ctx: int, essays: Essays | None = None, corpus: Corpus | None = None
) -> Iterator[Draft]:
    """Drafts at ctx in lm-eval's order; `prefix` begins with what it puts between question and answer prefix.

    count: tokens of a text. DoesNotFit where lm-eval fails or never ends.
    """
    if spec.kind == "niah":
        assert spec.needles is not None
        return _niah(spec.needles, spec.budget, count, ctx, essays)
    if spec.kind == "vt":
        return _vt(spec.budget, count, ctx)
    if spec.kind == "cwe":
        return _cwe(spec.budget, count, ctx)
    if spec.kind == "fwe":
        return _fwe(count, ctx)
    assert corpus is not None
    return _qa(corpus, spec.budget, count, ctx)


def _niah(needles: Needles, budget: int, count: Count, ctx: int, essays: Essays | None) -> Iterator[Draft]:
    hidden = needles.keys * needles.values
    made = niah.Niah(needles, essays)
    step, states = made.step(ctx), States()

    def draft(size: int) -> Draft:
        return made.draft(states, min(size, essays.n_words) if essays is not None else size)

    size, tokens = max(step, hidden), 0
    while tokens + budget < ctx:
        drawn = _drawn(draft, size)
        tokens = count(drawn.input + " ".join(drawn.answers))
        if tokens + budget > ctx:
            size -= step
            break
        if essays is not None and size > essays.n_words:
            size = essays.n_words
            break
        if size > ctx:
            raise UsageError(f"the tokenizer counts {tokens} tokens for {size} lines: it cannot measure lengths")
        size += step
    size = max(size, hidden)
    while True:
        yield _shrunk(draft, range(size, 0, -step), lambda d: count(d.input) + budget <= ctx)


def _drawn(draft: Callable[[int], Draft], size: int) -> Draft:
    try:
        return draft(size)
    except (ValueError, IndexError) as error:
        raise DoesNotFit(None) from error


def _shrunk(draft: Callable[[int], Draft], sizes: Sequence[int], fits: Callable[[Draft], bool]) -> Draft:
    """The first of `sizes` at which a draw succeeds and fits."""
    for size in sizes:
        try:
            drawn = draft(size)
        except (ValueError, IndexError):
            continue
        if fits(drawn):
            return drawn
    raise DoesNotFit(None)


def _retried(draft: Callable[[int], Draft], size: int, step: int, fits: Callable[[Draft], bool]) -> Draft:
    """As _shrunk, but the smallest size is tried again and again, by lm-eval for ever."""
    sizes = [*range(size, step, -step)]
    last = sizes[-1] - step if sizes else size
    return _shrunk(draft, [*sizes, *[last] * ATTEMPTS], fits)


def _vt(budget: int, count: Count, ctx: int) -> Iterator[Draft]:
    states = States()
    size = _vt_size(states, 5, vt.DEMO_TOKENS, budget, 0, 3, count)

    def demonstration(size: int) -> Draft:
        return _vt_question(states, size, 3)

    shown = _retried(demonstration, size, 5, lambda d: count(d.input + d.prefix) + budget <= vt.DEMO_TOKENS)
    demo = f"{shown.input}{shown.prefix} {' '.join(shown.answers)}\n\n"
    extra = count(demo)
    size = _vt_size(states, 10, ctx, budget, extra, 5, count)

    def question(size: int) -> Draft:
        return _vt_question(states, size, 5)

    while True:
        drawn = _retried(question, size, 10, lambda d: count(d.input + d.prefix) + budget + extra <= ctx)
        again = demo
        for name in demo[demo.index("they are: ") + 10 :].strip().split():
            again = again.replace(name, "".join(states.rng.choices(string.ascii_uppercase, k=len(name))).upper())
        text = f"{again}\n\n{drawn.input}"
        # The prefix is cut off and stripped, and joined to the question by a blank.
        yield Draft(text, " " + drawn.prefix.strip(), drawn.answers, drawn.meta)


def _vt_size(states: States, step: int, ctx: int, budget: int, extra: int, letters: int, count: Count) -> int:
    size, tokens = step, 0
    while tokens + budget + extra < ctx:
        drawn = _drawn(lambda n: _vt_question(states, n, letters), size)
        tokens = count(f"{drawn.input}{drawn.prefix} {list(drawn.answers)}")
        if tokens + budget + extra > ctx:
            return size - step
        size += step
    return size


def _vt_question(states: States, size: int, letters: int) -> Draft:
    names = vt.chain_names(states, letters)
    value = str(states.numbers.randint(10000, 99999))
    chain = [f"VAR {names[0]} = {value}", *(f"VAR {b} = VAR {a} " for a, b in pairwise(names))]
    lines = [_VT_NOISE] * size
    if size <= len(chain):
        # Too few lines of noise for the chain: lm-eval falls back to sentences.
        pieces = [piece for line in lines for piece in line.split(".")]
        lines = [piece + "." if piece.strip() else piece for piece in pieces]
        if len(lines) <= len(chain):
            chain = chain[: max(len(lines) - 1, 0)]
    for shift, place in enumerate(sorted(states.rng.sample(range(len(lines)), len(chain)))):
        lines.insert(place + shift, chain[shift])
    context = " ".join(lines).replace(". \n", ".\n")
    asked = vt.TEMPLATE.format(context=context, value=value)
    prefix = _VT_PREFIX.format(count=vt.HOPS + 1, value=value)
    return Draft(asked, prefix, tuple(names), {"size": size, "unit": "lines"})


def _cwe(budget: int, count: Count, ctx: int) -> Iterator[Draft]:
    states, shuffles, words = States(), random.Random(SHUFFLE_SEED), list(all_words())
    shuffles.shuffle(words)
    repeats = cwe.SHORT if ctx < 4096 else cwe.LONG

    def listed(size: int, common: int, other: int) -> tuple[str, list[str]]:
        chosen = states.rng.sample(words, size)
        numbered = chosen[: cwe.COMMON] * common + chosen[cwe.COMMON :] * other
        shuffles.shuffle(numbered)
        return cwe.numbered(numbered), chosen[: cwe.COMMON]

    demo = ""

    def draft(size: int) -> Draft:
        nonlocal demo
        context, answers = listed(repeats.demo_words, repeats.demo_common, repeats.demo_other)
        demo = f"{cwe.TEMPLATE.format(context=context)}{cwe.PREFIX}{cwe.numbered(answers)}"
        context, answers = listed(size, repeats.common, repeats.other)
        return Draft(cwe.TEMPLATE.format(context=context), cwe.PREFIX, tuple(answers), {"size": size})

    size, tokens = 10, 0
    while tokens + budget < ctx:
        drawn = draft(size)
        tokens = count(f"{demo}\n{drawn.input}{drawn.prefix} {cwe.numbered(drawn.answers)}")
        if tokens + budget > ctx:
            size -= 10
            break
        size += 10
        if size > len(words):
            size = len(words)
            break
    if size < cwe.COMMON:
        raise DoesNotFit(None)
    while True:
        drawn = _retried(draft, size, 10, lambda d: count(d.input + d.prefix) + budget <= ctx)
        yield Draft(drawn.input.strip(), "\n\n" + drawn.prefix.strip(), drawn.answers, drawn.meta)


def _fwe(count: Count, ctx: int) -> Iterator[Draft]:
    states, step, n_words = States(), ctx // 32, ctx // fwe.TOKENS_PER_WORD
    if n_words < 4 or step < 1:
        raise DoesNotFit(None)

    def tokens(draft: Draft) -> int:
        return count(draft.input + draft.prefix)

    vocab = fwe.vocabulary(states, n_words)
    size = ctx // fwe.WORD_LETTERS
    while tokens(fwe.coded_text(vocab, size, states)) < ctx:
        size += step
    size -= step
    while True:
        vocab, fitting = fwe.vocabulary(states, n_words), size
        drawn = fwe.coded_text(vocab, fitting, states)
        while tokens(drawn) > ctx:
            fitting -= step
            if fitting <= 0:
                raise DoesNotFit(None)
            drawn = fwe.coded_text(vocab, fitting, states)
        yield Draft(drawn.input.strip(), " " + drawn.prefix.strip(), drawn.answers, drawn.meta)


def _qa(corpus: Corpus, budget: int, count: Count, ctx: int) -> Iterator[Draft]:
    states, documents = States(), list(corpus.documents)

    def draft(index: int, size: int) -> Draft:
        question = corpus.questions[index]
        gold, related = list(question.gold), list(question.related)
        if size >= len(documents):
            chosen = documents  # shuffled in place: from here on lm-eval's numbers mean other documents
        elif size - len(gold) > len(related):
            taken = {*gold, *related}
            others = [i for i in range(len(documents)) if i not in taken]
            picked = gold + related + states.rng.sample(others, max(0, size - len(gold) - len(related)))
            chosen = [documents[i] for i in picked]
        else:
            picked = gold + states.rng.sample(related, max(0, size - len(gold)))
            chosen = [documents[i] for i in picked]
        states.shuffle(chosen)
        context = "\n\n".join(f"Document {i}:\n{text}" for i, text in enumerate(chosen, 1))
        asked = qa.TEMPLATE.format(context=context, query=question.query)
        return Draft(asked, qa.PREFIX, question.answers, {"size": len(chosen), "unit": "documents"})

    size, tokens = 10, 0
    while tokens + budget < ctx:
        drawn = draft(0, size)
        tokens = count(f"{drawn.input} {list(drawn.answers)}")
        if tokens + budget > ctx:
            size -= 10
            break
        size += 10
        if size > len(documents):
            size = len(documents)
            break
    size = max(size, 1)

    def fits(drawn: Draft) -> bool:
        return count(drawn.input) + budget <= ctx

    for index, question in enumerate(corpus.questions):
        least = len(question.gold)
        yield _shrunk(partial(draft, index), [*range(max(size, least), least, -10), least], fits)
    raise UsageError(f"{corpus.name} has {len(corpus.questions)} questions: ask for that many samples at most")
