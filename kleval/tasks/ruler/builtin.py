"""Builtin edition of RULER, its questions made one by one: no downloads, no shared random state, ends by construction.

Each sample draws from a state of its own (sha256 over task, version, edition, ctx, seed and index), shuffles included,
so that answers lie at other places in other samples. Its size is the largest that fits: the question at a size is a
function of state and size, so the search evaluates it at a few sizes between a bound that fits and one that does not.
The first guess comes from a probe question that is the same for all samples of a task, tokenizer and ctx.

Budget: the longest reference among PROBES probe questions, as a model would write it (all answers of a multi-answer
task), × 1.5 + 16 tokens; more for a sample whose own reference is longer.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import count
from typing import Literal

from kleval.tasks import articles
from kleval.tasks.draws import Draws, own_draws
from kleval.tasks.fitting import budget_for
from kleval.tasks.prose import SENTENCES_VERSION
from kleval.tasks.registry import OWN
from kleval.tasks.ruler import cwe, fwe, niah, qa, vt
from kleval.tasks.ruler.form import DoesNotFit, Drafter, Fitted, Form, Measure
from kleval.tasks.ruler.haystack import over_again, prose
from kleval.tasks.ruler.spec import VERSION, Draft, Spec
from kleval.tasks.ruler.words import combined, pairs, wonderwords
from kleval.tasks.sized import BuiltinData, Question
from kleval.tasks.texts import Documents
from kleval.types import Tokenizer

PROBES = 32
_SECANT_ROUNDS = 6
_WIDEN = 8
_NIAH_LEAST = 4
_PROSE_STARTS = 4096
# From N = 74 on, floor(N / 16 zeta) > floor(N / 25 zeta): the third word asked for is told from the one after it.
_FWE_LEAST = 74
_CWE_LEAST = 20
_DEMO_PART = 4
_ARTICLES = 256
_TOKENS_PER_ARTICLE = 64


@dataclass(frozen=True, slots=True)
class Source:
    """How one task's samples are made at one ctx.

    least: the smallest size. written: answers as a model writes them. key: what the random state of a sample is derived
    from, before its index.
    """

    draft: Drafter
    least: int
    written: Callable[[Sequence[str]], str]
    key: tuple[object, ...]

    def at(self, index: int, size: int, probe: bool = False) -> Draft:
        who = (*self.key, f"probe-{index}" if probe else index)
        try:
            return self.draft(own_draws(*who), size, index)
        except IndexError:
            # vt drew one name twice: one sample in a million, whatever its size.
            return self.draft(own_draws(*who, "again"), size, index)

    def budget(self, draft: Draft, tokenizer: Tokenizer) -> int:
        return budget_for(tokenizer.count(self.written(draft.answers)))


@dataclass(frozen=True, slots=True)
class Guess:
    """What a probe question tells of all samples at a ctx: tokens grow by about `per_unit` with each unit of size, and
    `size` units fill it."""

    size: int
    per_unit: float
    budget: int


def probe(source: Source, form: Form, ctx: int) -> Guess:
    """Budget and first guess for all samples at ctx. DoesNotFit when the probe question does not fit at all."""
    at = partial(source.at, 0, probe=True)
    small, large = source.least, source.least * 8
    budget = max(source.budget(source.at(i, small, probe=True), form.tokenizer) for i in range(PROBES))
    low, high = form.measure(at(small)), form.measure(at(large))
    while 0 < high * _WIDEN < ctx - budget:
        large *= _WIDEN
        high = form.measure(at(large))
    per_unit = max((high - low) / (large - small), 1e-3)
    first = Guess(small + max(0, int((ctx - budget - low) / per_unit)), per_unit, budget)
    fitted, size = fit(at, form.measure, ctx, budget, small, first)
    if size > small:
        per_unit = max((fitted.tokens - low) / (size - small), 1e-3)
    return Guess(size, per_unit, budget)


def sample(source: Source, form: Form, ctx: int, guess: Guess, index: int) -> Question:
    """Sample `index`. DoesNotFit when it is too long even at its smallest."""
    budget = guess.budget
    while True:
        fitted, _ = fit(partial(source.at, index), form.measure, ctx, budget, source.least, guess)
        own = source.budget(fitted.draft, form.tokenizer)
        if own <= budget:
            return form.question(index, fitted, budget)
        budget = own


def fit(
    build: Callable[[int], Draft], measure: Measure, ctx: int, budget: int, least: int, guess: Guess
) -> tuple[Fitted, int]:
    """The largest size whose question leaves `budget` tokens of ctx, and that question.

    Keeps a size that fits (or none yet) and one that does not, and tries the size between them that the tokens per unit
    suggest; after _SECANT_ROUNDS the middle. Stops when less than one average unit is left, or nothing is between.
    DoesNotFit when the smallest is too long.
    """
    best: Fitted | None = None
    good, bad = least - 1, 0  # bad: smallest size known to be too long, 0 for none yet
    size, rounds = max(guess.size, least), 0
    while True:
        rounds += 1
        drawn = build(size)
        tokens = measure(drawn)
        room = ctx - budget - tokens
        if room >= 0:
            best, good = Fitted(drawn, tokens), size
        else:
            bad = size
        if best is not None and (0 <= room < guess.per_unit or bad == good + 1):
            return best, good
        if bad == least:
            raise DoesNotFit(tokens + budget)
        size += math.floor(room / guess.per_unit)
        if rounds > _SECANT_ROUNDS:
            size = (good + bad) // 2 if bad else good * 2
        size = max(size, good + 1)
        if bad:
            size = min(size, bad - 1)


class Builtin(BuiltinData):
    """Made by kleval; needs nothing but the package. documents: of the user's, whose sentences are the haystack (edition `own`)."""

    def __init__(self, spec: Spec, protocol: str, documents: Documents | None = None) -> None:
        self._spec, self._protocol = spec, protocol
        super().__init__(spec.id, VERSION, *_made_of("essay" if spec.of_essays else spec.kind))
        self._edition, self._own = "builtin", list[str]()
        if documents is not None:
            self._edition, self._own = OWN, documents.sentences()
            self.revision = f"{documents.name} in {self.revision}"
            self.digest = combined({"generator": self.digest, "documents": documents.digest})
        self._guesses: dict[tuple[str, int, int], Guess] = {}

    def _maker(self, tokenizer: Tokenizer, ctx: int, seed: int) -> Callable[[int], Question]:
        form = Form(tokenizer, self._protocol, self._edition)
        source = self._source(form, ctx, (self._spec.id, VERSION, self._edition, ctx, seed))
        key = (tokenizer.digest + tokenizer.chat_template_digest, ctx, seed)
        if key not in self._guesses:
            self._guesses[key] = probe(source, form, ctx)
        return partial(sample, source, form, ctx, self._guesses[key])

    def _source(self, form: Form, ctx: int, key: tuple[object, ...]) -> Source:
        kind = self._spec.kind
        if kind == "vt":
            return Source(partial(vt.draft, _demonstration(form.tokenizer, ctx)), vt.HOPS + 1, " ".join, key)
        if kind == "fwe":
            return Source(partial(fwe.draft, max(8, ctx // fwe.TOKENS_PER_WORD)), _FWE_LEAST, ", ".join, key)
        if kind == "cwe":
            long = _cwe_source(cwe.LONG, key)
            # Room to spare, so that all samples at ctx are made one way.
            if ctx >= 4096 and form.measure(long.at(0, _CWE_LEAST)) * 1.25 <= ctx:
                return long
            return _cwe_source(cwe.SHORT, key)
        return _qa_source(self._spec, ctx, key) if kind == "qa" else self._niah_source(key)

    def _niah_source(self, key: tuple[object, ...]) -> Source:
        needles = self._spec.needles
        assert needles is not None

        def hide(draws: Draws, size: int, index: int) -> Draft:
            among = None
            if self._own:
                start = own_draws(*key, "documents", index).rng.randrange(len(self._own))
                among = niah.Prose(partial(over_again, self._own, start))
            elif needles.haystack == "essay":
                among = niah.Prose(partial(prose, own_draws(*key, "prose", index).rng.randrange(_PROSE_STARTS)))
            return niah.draft(needles, among, draws, size)

        return Source(hide, _NIAH_LEAST, ", ".join, key)


def _demonstration(tokenizer: Tokenizer, ctx: int) -> str:
    """vt's solved example: up to 500 tokens, a quarter of ctx, or the shortest there is."""
    limit = min(vt.DEMO_TOKENS, ctx // _DEMO_PART)
    shown, longer = "", ""
    for size in count(vt.DEMO_STEP):
        shown, longer = longer, vt.solved(vt.demonstration(own_draws("ruler/vt", VERSION, "demonstration"), size))
        if shown and tokenizer.count(longer) > limit:
            break
    return shown


def _cwe_source(repeats: cwe.Repeats, key: tuple[object, ...]) -> Source:
    words = cwe.CommonWords(repeats, 0, lambda: ("adjective-noun pairs", pairs()))
    return Source(words.draft, _CWE_LEAST, cwe.numbered, key)


def _qa_source(spec: Spec, ctx: int, key: tuple[object, ...]) -> Source:
    hops: Literal[1, 2] = 1 if spec.dataset == "squad" else 2
    made = qa.generated(hops, max(_ARTICLES, ctx // _TOKENS_PER_ARTICLE), f"ruler/{spec.name}")
    order = list(range(len(made.questions)))
    own_draws(*key, "order").rng.shuffle(order)

    def ask(draws: Draws, size: int, index: int) -> Draft:
        return qa.draft(made, False, draws, size, order[index % len(order)])

    return Source(ask, hops + 1, lambda answers: max(answers, key=len), key)


@cache
def _made_of(material: str) -> tuple[str, str]:
    """Revision and digest of what a kind of task is made from."""
    words, digest = wonderwords()
    if material == "essay":
        parts = {"prose": _hashed(prose(0, 256)), "words": digest}
        return f"kleval-{SENTENCES_VERSION} + {words}", combined(parts)
    if material == "qa":
        made = [qa.generated(1, _ARTICLES, "ruler/qa_1"), qa.generated(2, _ARTICLES, "ruler/qa_2")]
        shown = _hashed(text for c in made for text in [*c.documents, *(q.query for q in c.questions)])
        return f"kleval-{articles.ARTICLES_VERSION} + {SENTENCES_VERSION}", combined({"articles": shown})
    return (words, combined({"words": digest})) if material in ("niah", "cwe") else ("generated", combined({}))


def _hashed(texts: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()
