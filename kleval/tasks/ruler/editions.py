"""Sources of RULER questions: `Official` and `Builtin` streams of samples for one task.

Official reads pinned files and follows the official order. Builtin makes everything itself; what differs from the
official generator is on the cards.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Literal, Protocol

from kleval.tasks import data, datafile, registry, texts
from kleval.tasks.draws import own_draws
from kleval.tasks.ruler import builtin, corpus, cwe, fwe, haystack, lm_eval, niah, official, qa, vt
from kleval.tasks.ruler.builtin import Guess, Source
from kleval.tasks.ruler.official import DoesNotFit, Drafter, Fitted, Measure
from kleval.tasks.ruler.spec import ANY_PLACE, IN_PROMPT, LM_EVAL, PROTOCOL, VERSION, Spec
from kleval.tasks.ruler.words import WONDERWORDS_VERSION, pairs, words_digest
from kleval.tasks.sized import ALL
from kleval.types import UsageError

Count = Callable[[str], int]


class Edition(Protocol):
    """revision, digest: of the data. stream: samples at ctx with their budgets, without end or until data end; of the builtin edition
    those with the given indices, in the official order all."""

    revision: str
    digest: str

    def stream(
        self, measure: Measure, count: Count, tokenizer_key: str, ctx: int, seed: int, indices: Iterable[int] = ALL
    ) -> Iterator[tuple[Fitted, int]]: ...


def _wonderwords() -> tuple[str, str]:
    installed = metadata.version("wonderwords")
    note = "" if installed == WONDERWORDS_VERSION else " (unrecognised)"
    return f"wonderwords-{installed}{note}", words_digest()


def _combined(parts: dict[str, str]) -> str:
    lines = "".join(f"{name} {digest}\n" for name, digest in sorted(parts.items()))
    return hashlib.sha256(lines.encode()).hexdigest()


class Official:
    """Files from data_dir. UsageError when one is missing."""

    def __init__(self, spec: Spec, protocol: str, data_dir: Path | None) -> None:
        self._spec = spec
        self._protocol = protocol
        self._data_dir = data_dir
        self._files = {file: data.need("ruler", file, f"{spec.id} (official)", data_dir) for file in _files(spec)}
        named = {} if spec.kind not in ("niah", "cwe") else {"words": _wonderwords()}
        named |= {file: (_revision(status), status.sha256) for file, status in self._files.items()}
        revisions = dict.fromkeys(revision for revision, _ in named.values())
        self.revision = " + ".join(revisions) or "generated"
        self.digest = _combined({name: digest for name, (_, digest) in named.items()})

    def stream(
        self, measure: Measure, count: Count, tokenizer_key: str, ctx: int, seed: int, indices: Iterable[int] = ALL
    ) -> Iterator[tuple[Fitted, int]]:
        samples = (
            self._as_in_lm_eval(measure, count, ctx)
            if self._protocol == LM_EVAL
            else self._samples(measure, count, ctx, seed)
        )
        # lm-eval does not count the answer prefix everywhere: there the budget is what is left of ctx.
        return ((fitted, min(self._spec.budget, ctx - fitted.tokens)) for fitted in samples)

    def _as_in_lm_eval(self, measure: Measure, count: Count, ctx: int) -> Iterator[Fitted]:
        spec = self._spec
        asked = self._corpus() if spec.dataset else None
        for draft in lm_eval.stream(spec, count, ctx, self._essays(), asked):
            tokens = measure(draft)
            if tokens >= ctx:
                raise DoesNotFit(tokens + 1)
            yield Fitted(draft, tokens)

    def _samples(self, measure: Measure, count: Count, ctx: int, seed: int) -> Iterator[Fitted]:
        spec = self._spec
        if spec.kind == "vt":
            return official.vt_stream(measure, count, ctx, spec.budget, seed)
        if spec.kind == "fwe":
            return official.fwe_stream(measure, ctx, spec.budget, seed)
        if spec.kind == "cwe":
            repeats = cwe.SHORT if ctx < 4096 else cwe.LONG
            words = cwe.CommonWords(repeats, seed, self._more_words)
            return official.cwe_stream(words, measure, ctx, spec.budget, seed)
        if spec.kind == "qa":
            asked = qa.DocumentQa(self._corpus(), any_place=self._protocol == ANY_PLACE)
            return official.searched_stream(asked, measure, ctx, spec.budget, seed)
        assert spec.needles is not None
        return official.searched_stream(niah.Niah(spec.needles, self._essays()), measure, ctx, spec.budget, seed)

    def _corpus(self) -> corpus.Corpus:
        return corpus.read_corpus(self._spec.dataset, self._files[f"{self._spec.dataset}.json"].path)

    def _essays(self) -> haystack.Essays | None:
        if "PaulGrahamEssays.json" not in self._files:
            return None
        folder = next(status.path.parent for file, status in self._files.items() if file.endswith("abbrev_types.txt"))
        return haystack.read_essays(self._files["PaulGrahamEssays.json"].path, folder)

    def _more_words(self) -> tuple[str, Sequence[str]]:
        wanted = f"{self._spec.id} (official) above {len(cwe.all_words()):,} distinct words"
        status = data.need("ruler", "english_words.json", wanted, self._data_dir)
        return f"english_words.json {_revision(status)}", _english_words(status.path)


def _files(spec: Spec) -> list[str]:
    if spec.dataset:
        return [f"{spec.dataset}.json"]
    if spec.of_essays:
        punkt = [file for asset in data.assets("ruler") if asset.members for file in asset.files()]
        return ["PaulGrahamEssays.json", *punkt]
    return []


def _revision(status: data.Status) -> str:
    return status.revision or f"unrecognised {status.path.name} sha256:{status.sha256}"


@cache
def _english_words(file: Path) -> list[str]:
    try:
        words = list(datafile.whole_json(file).values())
    except (UsageError, AttributeError):
        words = []
    if not words or not all(isinstance(word, str) for word in words):
        raise UsageError(f"{file} does not have the shape of the official file, {{number: word}}")
    return words


def _pairs() -> tuple[str, Sequence[str]]:
    return "adjective-noun pairs", pairs()


class Builtin:
    """Made by kleval; needs nothing but the package. documents: of the user's, whose sentences are the haystack (edition `own`)."""

    def __init__(self, spec: Spec, documents: texts.Documents | None = None) -> None:
        self._spec = spec
        self.revision, self.digest = _builtin_data(_kind(spec))
        self._own: list[str] = []
        if documents is not None:
            self._own = documents.sentences()
            self.revision = f"{documents.name} in {self.revision}"
            self.digest = _combined({"generator": self.digest, "documents": documents.digest})
        self._guesses: dict[tuple[str, int, int], Guess] = {}

    def stream(
        self, measure: Measure, count: Count, tokenizer_key: str, ctx: int, seed: int, indices: Iterable[int] = ALL
    ) -> Iterator[tuple[Fitted, int]]:
        source = self._source(measure, count, ctx, seed)
        key = (tokenizer_key, ctx, seed)
        if key not in self._guesses:
            self._guesses[key] = builtin.probe(source, measure, count, ctx)
        for index in indices:
            yield builtin.sample(source, measure, count, ctx, self._guesses[key], index)

    def _source(self, measure: Measure, count: Count, ctx: int, seed: int) -> Source:
        spec = self._spec
        key = (spec.id, VERSION, registry.OWN if self._own else "builtin", ctx, seed)
        if spec.kind == "vt":
            tracked = vt.VariableTracking(_demonstration(count, ctx))
            return Source(lambda index: tracked.draft, vt.HOPS + 1, " ".join, key)
        if spec.kind == "cwe":
            return _cwe_source(measure, ctx, key)
        if spec.kind == "fwe":
            words = fwe.FrequentWords(max(8, ctx // fwe.TOKENS_PER_WORD))
            return Source(lambda index: words.draft, _FWE_LEAST, ", ".join, key)
        if spec.kind == "qa":
            return _qa_source(spec, ctx, key)
        needles = spec.needles
        assert needles is not None

        def hide(index: int) -> Drafter:
            if self._own:
                start = own_draws(*key, "documents", index).rng.randrange(len(self._own))
                return niah.Niah(needles, haystack.OwnText(self._own, start)).draft
            prose = haystack.Prose(own_draws(*key, "prose", index).rng.randrange(_PROSE_STARTS))
            return niah.Niah(needles, prose if needles.haystack == "essay" else None).draft

        return Source(hide, _NIAH_LEAST, ", ".join, key)


_NIAH_LEAST = 4
_PROSE_STARTS = 4096
# From N = 74 on, floor(N / 16 zeta) > floor(N / 25 zeta): the third word asked for is told from the one after it.
_FWE_LEAST = 74
_CWE_LEAST = 20
_DEMO_PART = 4


def _kind(spec: Spec) -> str:
    return "essay" if spec.of_essays else spec.kind


def _demonstration(count: Count, ctx: int) -> str:
    """vt's solved example: up to 500 tokens, a quarter of ctx, or the shortest there is."""
    limit = min(vt.DEMO_TOKENS, ctx // _DEMO_PART)
    size = vt.DEMO_STEP
    shown = vt.solved(vt.demonstration(own_draws("ruler/vt", VERSION, "demonstration"), size))
    while True:
        size += 1
        longer = vt.solved(vt.demonstration(own_draws("ruler/vt", VERSION, "demonstration"), size))
        if count(longer) > limit:
            return shown
        shown = longer


def _cwe_source(measure: Measure, ctx: int, key: tuple[object, ...]) -> Source:
    def source(repeats: cwe.Repeats) -> Source:
        words = cwe.CommonWords(repeats, 0, _pairs)
        return Source(lambda index: words.draft, _CWE_LEAST, cwe.numbered, key)

    long = source(cwe.LONG)
    # Room to spare, so that all samples at ctx are made one way.
    if ctx >= 4096 and measure(long.at(0, _CWE_LEAST)) * 1.25 <= ctx:
        return long
    return source(cwe.SHORT)


def _qa_source(spec: Spec, ctx: int, key: tuple[object, ...]) -> Source:
    hops: Literal[1, 2] = 1 if spec.dataset == "squad" else 2
    made = corpus.generated(hops, max(_ARTICLES, ctx // _TOKENS_PER_ARTICLE), f"ruler/{spec.name}")
    order = list(range(len(made.questions)))
    own_draws(*key, "order").rng.shuffle(order)
    asked = qa.DocumentQa(made)

    def ask(index: int) -> Drafter:
        number = order[index % len(order)]
        return lambda draws, size, index=0: asked.draft(draws, size, number)

    return Source(ask, hops + 1, lambda answers: max(answers, key=len), key)


_ARTICLES = 256
_TOKENS_PER_ARTICLE = 64


def protocols(spec: Spec, edition: str) -> tuple[str, ...]:
    """What `--protocol` can name, the default first."""
    if edition != "official":
        return (PROTOCOL, IN_PROMPT)
    return (PROTOCOL, LM_EVAL, IN_PROMPT, *((ANY_PLACE,) if spec.kind == "qa" else ()))


@cache
def _builtin_data(kind: str) -> tuple[str, str]:
    """Revision and digest of what the builtin edition of a kind of task is made from."""
    from kleval.tasks import articles, prose

    if kind == "essay":
        words, digest = _wonderwords()
        sample = "\n".join(haystack.Prose().sentences(256))
        shown = hashlib.sha256(sample.encode()).hexdigest()
        return f"kleval-{prose.SENTENCES_VERSION} + {words}", _combined({"prose": shown, "words": digest})
    if kind == "qa":
        made = [corpus.generated(1, _ARTICLES, "ruler/qa_1"), corpus.generated(2, _ARTICLES, "ruler/qa_2")]
        texts = "\n".join(text for c in made for text in [*c.documents, *(q.query for q in c.questions)])
        shown = hashlib.sha256(texts.encode()).hexdigest()
        return f"kleval-{articles.ARTICLES_VERSION} + {prose.SENTENCES_VERSION}", _combined({"articles": shown})
    if kind in ("niah", "cwe"):
        words, digest = _wonderwords()
        return words, _combined({"words": digest})
    return "generated", _combined({})


def does_fit(stream: Iterator[tuple[Fitted, int]], n: int) -> bool:
    """Whether the first n samples can be made."""
    try:
        for _, _ in zip(range(n), stream, strict=False):
            pass
    except DoesNotFit:
        return False
    return True


def templates(spec: Spec) -> tuple[str, str]:
    """Of the question and of the answer prefix, places unfilled."""
    if spec.needles is None:
        made = {"vt": vt, "cwe": cwe, "fwe": fwe, "qa": qa}[spec.kind]
        return made.TEMPLATE, made.PREFIX
    single = spec.needles.queries * spec.needles.values == 1
    return (niah.ONE, niah.ONE_PREFIX) if single else (niah.MANY, niah.MANY_PREFIX)


def edition_of(spec: Spec, edition: str, protocol: str, data_dir: Path | None) -> Edition:
    if edition == "official":
        return Official(spec, protocol, data_dir)
    if edition == "builtin":
        return Builtin(spec)
    if edition == registry.OWN and data_dir is not None and spec.takes_documents:
        return Builtin(spec, texts.read(data_dir))
    raise UsageError(f"{spec.id} has no edition {edition!r}: there are builtin and official")
