"""RULER's task objects: samples of one edition, asked in one call, scored officially."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from kleval.tasks import data
from kleval.tasks.base import OneCall
from kleval.tasks.likelihood import without
from kleval.tasks.ruler.editions import edition_of, protocols
from kleval.tasks.ruler.form import DoesNotFit
from kleval.tasks.ruler.scoring import METRICS, postprocess, string_match_all
from kleval.tasks.ruler.spec import IN_PROMPT, LM_EVAL, PROTOCOL, SPECS, VERSION
from kleval.tasks.sized import SizedTask
from kleval.types import Completion, ContextTooSmall, Prompt, Sample, Score, Tokenizer, Unfit

_LONGEST_TRIED = 1 << 21
_SAMPLES_TRIED = 8


class RulerTask(OneCall, SizedTask):
    """One of the 13 tasks in one edition."""

    version = VERSION
    own_protocols = (PROTOCOL,)
    without_prefix = IN_PROMPT

    def __init__(self, name: str, edition: str, protocol: str | None, data_dir: Path | None) -> None:
        spec = self.spec = SPECS[name]
        kinds = (spec.metric, spec.kind, *(("essay",) if spec.of_essays else ()))
        super().__init__(spec.id, edition, protocol, protocols(spec, edition), {"budget": spec.budget}, kinds)
        self.metric, self.official_budget = spec.metric, spec.budget
        self.finds_needles = spec.needles is not None
        self._open = partial(edition_of, spec, edition, self.protocol, data_dir)
        # The official samples of a length share one random state: to make one is to make all before it.
        self.together = 0 if edition == "official" else 1
        self._minimum: dict[tuple[str, int, int], int] = {}
        # Long lists alone read it, so that it is not in the digest.
        words = data.data_folder("ruler", data_dir) / "english_words.json"
        reads_it = edition == "official" and spec.kind == "cwe" and words.is_file()
        self.also_reads = data.file_sha256(words) if reads_it else ""

    def samples(self, tokenizer: Tokenizer, ctx: int, n: int, seed: int) -> Iterator[Sample | Unfit]:
        return self._or_minimum(super().samples(tokenizer, ctx, n, seed), tokenizer, ctx, n, seed)

    def samples_at(
        self, tokenizer: Tokenizer, ctx: int, indices: Iterable[int], seed: int
    ) -> Iterator[Sample | Unfit] | None:
        wanted = tuple(indices)
        made = super().samples_at(tokenizer, ctx, wanted, seed)
        return None if made is None else self._or_minimum(made, tokenizer, ctx, len(wanted), seed)

    def score(self, sample: Sample, answer: Completion) -> Score:
        prediction = postprocess(answer.text)
        # lm-eval's string_match_part divides by the number of references, which makes it string_match_all.
        match = string_match_all if self.protocol == LM_EVAL else METRICS[self.metric]
        value = match(prediction, sample.references)
        return Score({self.metric: value}, extracted=prediction)

    def question_alone(self, sample: Sample) -> Prompt:
        """Without its haystack, list or documents; a solved example stays."""
        return without(sample.prompt, self.spec.texts.question, "{context}", demonstrated=True)

    def sample_id(self, index: int, ctx: int, seed: int) -> str:
        variant = "" if self.protocol == PROTOCOL else f"/{self.protocol}"
        return f"{self.id}@{self.edition}-{VERSION}{variant}/{ctx}/s{seed}/i{index}"

    def _template(self) -> str:
        return "\0".join(self.spec.texts)

    def _facts(self) -> Mapping[str, Any]:
        return {"demonstrations": 1 if self.spec.kind in ("vt", "cwe") else 0}

    def _or_minimum(
        self, made: Iterator[Sample | Unfit], tokenizer: Tokenizer, ctx: int, n: int, seed: int
    ) -> Iterator[Sample | Unfit]:
        """The same; ContextTooSmall with the smallest ctx at which that many fit, where they do not."""
        try:
            yield from made
        except DoesNotFit as error:
            tried = min(n, _SAMPLES_TRIED)
            key = (tokenizer.digest + tokenizer.chat_template_digest, seed, tried)
            if self._minimum.get(key, 0) <= ctx:
                self._minimum[key] = self._smallest(tokenizer, ctx, tried, seed, error.needed_tokens)
            minimum = self._minimum[key]
            which = f"{self.id} ({self.edition}) does not fit into ctx {ctx} with tokenizer {tokenizer.name}"
            raise ContextTooSmall(f"{which}: it needs {minimum} or more", minimum) from error

    def _smallest(self, tokenizer: Tokenizer, ctx: int, n: int, seed: int, needed_tokens: int | None) -> int:
        """The smallest ctx found at which n samples fit, by trying: bounds first, then bisection."""

        def fits(length: int) -> bool:
            try:
                list(super(RulerTask, self).samples(tokenizer, length, n, seed))
            except DoesNotFit:
                return False
            return True

        low, high = ctx, max(needed_tokens or 0, ctx + 1)
        while not fits(high):
            low, high = high, max(high + high // 4, high + 16)
            if high > _LONGEST_TRIED:
                return high
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if fits(middle) else (middle, high)
        return high
