"""RULER's task objects: samples of one edition, asked in one call, scored officially.

The answer prefix sits after any assistant header and is continued by the model (official `input + answer_prefix`). For
a tokenizer with a chat template the input is the user's message; the official script formats its own template strings.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from kleval.tasks import data
from kleval.tasks.base import OneCall, as_prompt
from kleval.tasks.cards import Card, head
from kleval.tasks.counts import Counts
from kleval.tasks.likelihood import without
from kleval.tasks.registry import EDITIONS, OWN, check_protocol
from kleval.tasks.ruler.editions import Edition, does_fit, edition_of, protocols, templates
from kleval.tasks.ruler.official import DoesNotFit, Fitted
from kleval.tasks.ruler.scoring import METRICS, postprocess, string_match_all
from kleval.tasks.ruler.spec import IN_PROMPT, LM_EVAL, PROTOCOL, SPECS, VERSION, Draft, Spec
from kleval.tasks.sized import ALL, OfData
from kleval.tokenization import count_given
from kleval.types import Completion, ContextTooSmall, Prompt, Sample, Score, Tokenizer, UsageError

_LONGEST_TRIED = 1 << 21
_SAMPLES_TRIED = 8


class RulerTask(OneCall, OfData[Edition]):
    """One of the 13 tasks in one edition."""

    without_prefix = IN_PROMPT

    def __init__(self, spec: Spec, edition: str, protocol: str | None, data_dir: Path | None) -> None:
        self.spec = spec
        self.id = spec.id
        self.version = VERSION
        self.metric: str = spec.metric
        self.edition = edition
        self.protocol = check_protocol(f"{spec.id} ({edition})", protocol, protocols(spec, edition))
        self.description = spec.description
        self.finds_needles = spec.needles is not None
        self._open = partial(edition_of, spec, edition, self.protocol, data_dir)
        names = (spec.metric, spec.kind, *(("essay",) if spec.of_essays else ()))
        self._card = Card(
            "ruler", names, edition if edition in EDITIONS else "builtin", self.protocol, {"budget": spec.budget}
        )
        self.needs_continued_text = self._card.needs("continued text")
        own = ("haystack: sentences of the user's documents",) if edition == OWN else ()
        self.deviations = (*self._card.texts("deviations"), *own)
        # The official samples of a length share one random state: to make one is to make all before it.
        self.together = 0 if edition == "official" else 1
        self._variant = "" if self.protocol == PROTOCOL else f"/{self.protocol}"
        self._minimum: dict[tuple[str, int, int], int] = {}
        # Long lists alone read it, so that it is not in the digest.
        words = data.data_folder("ruler", data_dir) / "english_words.json"
        reads_it = edition == "official" and spec.kind == "cwe" and words.is_file()
        self.also_reads = data.file_sha256(words) if reads_it else ""

    def samples(self, tokenizer: Tokenizer, ctx: int, n: int, seed: int) -> Iterator[Sample]:
        if ctx < 1 or n < 0:
            raise UsageError(f"{self.id}: ctx must be at least 1 and the number of samples at least 0")
        yield from self._first(tokenizer, ctx, range(n), seed)

    def samples_at(self, tokenizer: Tokenizer, ctx: int, indices: Sequence[int], seed: int) -> Iterator[Sample] | None:
        """The samples with those indices, without the others; None for the official order."""
        return None if self.edition == "official" else self._first(tokenizer, ctx, indices, seed)

    def _first(self, tokenizer: Tokenizer, ctx: int, indices: Sequence[int], seed: int) -> Iterator[Sample]:
        try:
            for index, (fitted, budget) in zip(indices, self._stream(tokenizer, ctx, seed, indices), strict=False):
                yield self._sample(tokenizer, ctx, seed, index, fitted, budget)
        except DoesNotFit as error:
            raise self._too_small(tokenizer, ctx, len(indices), seed, error.needed_tokens) from error

    def score(self, sample: Sample, answer: Completion) -> Score:
        prediction = postprocess(answer.text)
        # lm-eval's string_match_part divides by the number of references, which makes it string_match_all.
        match = string_match_all if self.protocol == LM_EVAL else METRICS[self.metric]
        value = match(prediction, sample.references)
        return Score({self.metric: value}, extracted=prediction)

    def question_alone(self, sample: Sample) -> Prompt:
        """Without its haystack, list or documents; a solved example stays."""
        return without(sample.prompt, templates(self.spec)[0], "{context}", demonstrated=True)

    def card(self) -> dict[str, Any]:
        """What the task is and where it comes from; JSON values."""
        card, official = self._card, self.edition == "official"
        return {
            **head(self, ""),
            "source": card.text("source"),
            "prompt_sha256": hashlib.sha256("\0".join(templates(self.spec)).encode()).hexdigest(),
            "metric": card.text("metric"),
            "max_new_tokens": self.spec.budget if official else "longest reference x 1.5 + 16",
            "limits": card.text("limits"),
            "demonstrations": 1 if self.spec.kind in ("vt", "cwe") else 0,
            "deviations": list(self.deviations),
            "defects": list(card.texts("defects")),
        }

    def counts(self) -> Counts | None:
        return Counts.of(self._card.table("counts"), self.spec.budget)

    def _stream(
        self, tokenizer: Tokenizer, ctx: int, seed: int, indices: Iterable[int] = ALL
    ) -> Iterator[tuple[Fitted, int]]:
        def measure(draft: Draft) -> int:
            prompt, prefix = self._asked(tokenizer, draft)
            if self.edition == "official":  # the scripts count without special tokens
                return count_given(tokenizer, prompt, prefix)
            return tokenizer.count(tokenizer.render(prompt, prefix)) + self._repeated(tokenizer, draft)

        return self._made.stream(measure, tokenizer.count, _counts_as(tokenizer), ctx, seed, indices)

    def _sample(self, tokenizer: Tokenizer, ctx: int, seed: int, index: int, fitted: Fitted, budget: int) -> Sample:
        draft = fitted.draft
        prompt, prefix = self._asked(tokenizer, draft)
        repeated = self._repeated(tokenizer, draft)
        return Sample(
            id=f"{self.id}@{self.edition}-{self.version}{self._variant}/{ctx}/s{seed}/i{index}",
            task=self.id,
            ctx=ctx,
            index=index,
            prompt=prompt,
            references=draft.answers,
            max_new_tokens=budget + repeated,
            prompt_tokens=fitted.tokens - repeated,
            answer_prefix=prefix,
            meta=draft.meta,
        )

    def _asked(self, tokenizer: Tokenizer, draft: Draft) -> tuple[Prompt, str]:
        """Prompt and answer prefix. lm-eval joins the two by a blank or empty line, but not across an assistant header."""
        if self.protocol == IN_PROMPT:
            return as_prompt(tokenizer, draft.input + draft.prefix), ""
        chat = self.protocol == LM_EVAL and tokenizer.chat_template_digest
        return as_prompt(tokenizer, draft.input), draft.prefix.lstrip() if chat else draft.prefix

    def _repeated(self, tokenizer: Tokenizer, draft: Draft) -> int:
        """Tokens that a model takes to say the beginning itself, for which a builtin budget has room."""
        return tokenizer.count(draft.prefix) if self.protocol == IN_PROMPT and self.edition == "builtin" else 0

    def _too_small(
        self, tokenizer: Tokenizer, ctx: int, n: int, seed: int, needed_tokens: int | None
    ) -> ContextTooSmall:
        tried = min(n, _SAMPLES_TRIED)
        key = (_counts_as(tokenizer), seed, tried)
        if self._minimum.get(key, 0) <= ctx:
            self._minimum[key] = self._smallest(tokenizer, ctx, tried, seed, needed_tokens)
        minimum = self._minimum[key]
        return ContextTooSmall(
            f"{self.id} ({self.edition}) does not fit into ctx {ctx} with tokenizer {tokenizer.name}:"
            f" it needs {minimum} or more",
            minimum,
        )

    def _smallest(self, tokenizer: Tokenizer, ctx: int, n: int, seed: int, needed_tokens: int | None) -> int:
        """The smallest ctx found at which n samples fit, by trying: bounds first, then bisection."""

        def fits(length: int) -> bool:
            return does_fit(self._stream(tokenizer, length, seed), n)

        low, high = ctx, max(needed_tokens or 0, ctx + 1)
        while not fits(high):
            low, high = high, max(high + high // 4, high + 16)
            if high > _LONGEST_TRIED:
                return high
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if fits(middle) else (middle, high)
        return high


def _counts_as(tokenizer: Tokenizer) -> str:
    """The same for tokenizers that give every prompt the same number of tokens."""
    return tokenizer.digest + tokenizer.chat_template_digest


def _opener(name: str) -> Callable[[str, str | None, Path | None], RulerTask]:
    return partial(RulerTask, SPECS[name])


niah_single_1 = _opener("niah_single_1")
niah_single_2 = _opener("niah_single_2")
niah_single_3 = _opener("niah_single_3")
niah_multikey_1 = _opener("niah_multikey_1")
niah_multikey_2 = _opener("niah_multikey_2")
niah_multikey_3 = _opener("niah_multikey_3")
niah_multivalue = _opener("niah_multivalue")
niah_multiquery = _opener("niah_multiquery")
vt = _opener("vt")
cwe = _opener("cwe")
fwe = _opener("fwe")
qa_1 = _opener("qa_1")
qa_2 = _opener("qa_2")
