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
from functools import partial
from itertools import pairwise

from kleval.tasks.draws import Draws
from kleval.tasks.ruler import cwe, fwe, niah, qa, vt
from kleval.tasks.ruler.corpus import Corpus
from kleval.tasks.ruler.form import DoesNotFit
from kleval.tasks.ruler.haystack import Essays
from kleval.tasks.ruler.official import ATTEMPTS
from kleval.tasks.ruler.spec import NOISE, Draft, Needles, Spec
from kleval.tasks.ruler.words import all_words
from kleval.types import UsageError

PYTHON_SEED, NUMPY_SEED, SHUFFLE_SEED = 0, 1234, 42
Count = Callable[[str], int]

_VT_PREFIX = vt.PREFIX.replace("assigned", "assgined")
_VT_NOISE = NOISE + "\n"


def _states() -> Draws:
    """Draws with lm-eval's seeds: Python's and numpy's differ, and every shuffle is one of seed 42."""
    import numpy as np

    states = Draws(SHUFFLE_SEED)
    states.rng, states.numbers = random.Random(PYTHON_SEED), np.random.RandomState(NUMPY_SEED)
    return states


def stream(
    spec: Spec, count: Count, ctx: int, essays: Essays | None = None, corpus: Corpus | None = None
) -> Iterator[Draft]:
    """Drafts at ctx in lm-eval's order; `prefix` begins with what it puts between question and answer prefix.

    count: tokens of a text. DoesNotFit where lm-eval fails or never ends.
    """
    if spec.needles is not None:
        return _niah(spec.needles, spec.budget, count, ctx, essays)
    if corpus is not None:
        return _qa(corpus, spec.budget, count, ctx)
    return {"vt": _vt, "cwe": _cwe, "fwe": _fwe}[spec.kind](spec.budget, count, ctx)


def _grown(
    tokens: Callable[[int], int],
    step: int,
    limit: int,
    first: int | None = None,
    most: int | None = None,
    over: int = 0,
) -> int:
    """The search for a size: by steps, until a question is too long, then one step back; `most` once a size is beyond most - over.

    tokens: of a question drawn at a size. first: the size to begin with, else the step.
    """
    size, found = first or step, 0
    while found < limit:
        found = tokens(size)
        if found > limit:
            return size - step
        if most is not None and size > most - over:
            return most
        if size > limit:
            raise UsageError(f"the tokenizer counts {found} tokens for size {size}: it cannot measure lengths")
        size += step
    return size


def _niah(needles: Needles, budget: int, count: Count, ctx: int, essays: Essays | None) -> Iterator[Draft]:
    hidden = needles.keys * needles.values
    made = niah.Niah(needles, essays)
    step, states = made.step(ctx), _states()

    def draft(size: int) -> Draft:
        return made.draft(states, min(size, essays.n_words) if essays is not None else size)

    def tokens(size: int) -> int:
        drawn = _drawn(draft, size)
        return count(drawn.input + " ".join(drawn.answers))

    most = essays.n_words if essays is not None else None
    size = max(_grown(tokens, step, ctx - budget, max(step, hidden), most), hidden)
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
    states = _states()

    def tokens(letters: int, size: int) -> int:
        drawn = _drawn(partial(_vt_question, states, letters), size)
        return count(f"{drawn.input}{drawn.prefix} {list(drawn.answers)}")

    def retried(letters: int, step: int, limit: int) -> Draft:
        return _retried(
            partial(_vt_question, states, letters), size, step, lambda d: count(d.input + d.prefix) <= limit
        )

    limit = vt.DEMO_TOKENS - budget
    size = _grown(partial(tokens, 3), 5, limit)
    shown = retried(3, 5, limit)
    demo = f"{shown.input}{shown.prefix} {' '.join(shown.answers)}\n\n"
    limit = ctx - budget - count(demo)
    size = _grown(partial(tokens, 5), 10, limit)
    while True:
        drawn = retried(5, 10, limit)
        again = demo
        for name in demo[demo.index("they are: ") + 10 :].strip().split():
            again = again.replace(name, "".join(states.rng.choices(string.ascii_uppercase, k=len(name))).upper())
        text = f"{again}\n\n{drawn.input}"
        # The prefix is cut off and stripped, and joined to the question by a blank.
        yield Draft(text, " " + drawn.prefix.strip(), drawn.answers, drawn.meta)


def _vt_question(states: Draws, letters: int, size: int) -> Draft:
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
    states, shuffles, words = _states(), random.Random(SHUFFLE_SEED), list(all_words())
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

    def tokens(size: int) -> int:
        drawn = draft(size)
        return count(f"{demo}\n{drawn.input}{drawn.prefix} {cwe.numbered(drawn.answers)}")

    size = _grown(tokens, 10, ctx - budget, most=len(words), over=10)
    if size < cwe.COMMON:
        raise DoesNotFit(None)
    while True:
        drawn = _retried(draft, size, 10, lambda d: count(d.input + d.prefix) + budget <= ctx)
        yield Draft(drawn.input.strip(), "\n\n" + drawn.prefix.strip(), drawn.answers, drawn.meta)


def _fwe(budget: int, count: Count, ctx: int) -> Iterator[Draft]:
    states, step, n_words = _states(), ctx // 32, ctx // fwe.TOKENS_PER_WORD
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
    states, documents = _states(), list(corpus.documents)

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

    def tokens(size: int) -> int:
        drawn = draft(0, size)
        return count(f"{drawn.input} {list(drawn.answers)}")

    size = max(_grown(tokens, 10, ctx - budget, most=len(documents), over=10), 1)

    def fits(drawn: Draft) -> bool:
        return count(drawn.input) + budget <= ctx

    for index, question in enumerate(corpus.questions):
        least = len(question.gold)
        yield _shrunk(partial(draft, index), [*range(max(size, least), least, -10), least], fits)
    raise UsageError(f"{corpus.name} has {len(corpus.questions)} questions: ask for that many samples at most")
