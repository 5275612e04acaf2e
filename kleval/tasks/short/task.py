"""One short benchmark as a task: shots, then a question, then either a generated answer that is read and compared, or the
likelihood of each choice.

Prompts are put together as lm-eval 0.4.13 does it: description, then each shot and a blank line, then the question. `acc`
takes the choice with the highest log-probability, `acc_norm` the one with the highest per character; the blank before a
choice belongs to it but is not counted. Where the tokenizer has a chat template the whole prompt is the user's message and
the choices follow without a blank.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from typing import Any

from kleval.tasks.base import InOrder, as_prompt, request_of
from kleval.tasks.cards import head
from kleval.tasks.fitting import budget_for
from kleval.tasks.short.question import Benchmark, Item
from kleval.tokenization import encode_pair
from kleval.types import Completion, Failure, Prompt, Request, Sample, Score, Tokenizer, Unfit, UsageError

VERSION = "1"


class ShortTask(InOrder):
    """benchmark: what is asked. shots: None for as many as the benchmark's shape says. revision, digest: of the data."""

    grows = False

    def __init__(
        self,
        task_id: str,
        benchmark: Benchmark,
        shots: int | None,
        *,
        edition: str,
        protocol: str,
        revision: str,
        digest: str,
        deviations: Sequence[str] = (),
    ) -> None:
        self.id, self.version = task_id, VERSION
        self.edition, self.protocol = edition, protocol
        self.data_revision, self.data_digest = revision, digest
        self.deviations = tuple(deviations)
        self._benchmark, self._shape = benchmark, benchmark.shape
        self.metric = benchmark.shape.metric
        self.shots = benchmark.shape.shots if shots is None else shots
        self.description = f"{benchmark.title}, {self.shots}-shot"
        most = benchmark.most_shots()
        if self.shots > most:
            raise UsageError(f"{task_id} ({edition}) has at most {most} examples to show before a question")

    def _samples(self, tokenizer: Tokenizer, ctx: int, seed: int) -> Iterator[Sample | Unfit]:
        budget = self._budget(tokenizer)
        for index, item in enumerate(self._benchmark.items):
            yield self._sample(index, item, tokenizer, ctx, seed, budget)

    def step(self, sample: Sample, outcomes: Sequence[Completion]) -> Sequence[Request] | Score | Failure:
        if self._shape.read is None:
            return self._choose(sample, outcomes) if outcomes else _asked(sample.prompt, sample.meta)
        return self.score(sample, outcomes[0]) if outcomes else (request_of(sample, self._temperature()),)

    def score(self, sample: Sample, answer: Completion) -> Score:
        assert self._shape.read is not None
        metrics, extracted = self._shape.read(answer.text, sample.references)
        return self._by_group(sample, metrics, extracted)

    def card(self) -> dict[str, Any]:
        """What the task is and where it comes from; JSON values."""
        how, budget = "likelihood of the choices", "the longest choice"
        if self._shape.read is not None:
            own = "the longest answer x 1.5 + 16"
            how, budget = "generated answer", str(self._shape.max_new_tokens) if self.edition == "official" else own
        return {
            **head(self, self._benchmark.source),
            "prompt_sha256": hashlib.sha256(self._text(self._benchmark.items[0]).encode()).hexdigest(),
            "metric": f"{self.metric} ({how}{', also by group' if self._shape.by_group else ''})",
            "max_new_tokens": budget,
            "limits": f"temperature {self._temperature():g}; {len(self._benchmark.items):,} questions; nothing is cut",
            "shots": self.shots,
            "deviations": list(self.deviations),
            "defects": [],
        }

    def _temperature(self) -> float:
        return self._shape.temperature if self.edition == "official" else 0.0

    def _text(self, item: Item) -> str:
        shown = "".join(f"{shot.as_shot()}\n\n" for shot in self._benchmark.pool(item)[: self.shots])
        return self._shape.description(item.group) + shown + item.text

    def _budget(self, tokenizer: Tokenizer) -> int:
        if self._shape.read is None:
            return 0
        if self.edition == "official":
            return self._shape.max_new_tokens
        items = (*self._benchmark.shots, *self._benchmark.items)
        return budget_for(max(tokenizer.count(item.answer) for item in items))

    def _sample(self, index: int, item: Item, tokenizer: Tokenizer, ctx: int, seed: int, budget: int) -> Sample | Unfit:
        text = self._text(item)
        prompt = as_prompt(tokenizer, text)
        meta: dict[str, Any] = {"shots": self.shots, **({"group": item.group} if item.group else {})}
        if self._shape.read is None:
            meta |= {"choices": list(item.choices), "gold": item.gold}
            if item.texts:
                head = text[: len(text) - len(item.text)]
                meta["texts"] = [head + choice for choice in item.texts]
            pairs = [
                encode_pair(tokenizer, tokenizer.render(one.prompt), one.continuation) for one in _asked(prompt, meta)
            ]
            tokens = max(len(head_ids) for head_ids, _ in pairs)
            budget = max(len(continuation) for _, continuation in pairs)
        else:
            tokens = tokenizer.count(tokenizer.render(prompt))
        if tokens + budget > ctx:
            return Unfit(index, f"{self.id} question {index} needs {tokens + budget} tokens", tokens + budget)
        return Sample(
            id=f"{self.id}@{self.edition}-{self.version}/{ctx}/s{seed}/i{index}",
            task=self.id,
            ctx=ctx,
            index=index,
            prompt=prompt,
            references=item.references,
            max_new_tokens=budget,
            prompt_tokens=tokens,
            stop=self._shape.stop,
            meta=meta,
        )

    def _choose(self, sample: Sample, outcomes: Sequence[Completion]) -> Score | Failure:
        sums = [outcome.logprob_sum for outcome in outcomes]
        known = [value for value in sums if value is not None]
        if len(known) < len(sums):
            return Failure("bad_request", "the backend gave no log-probability of a choice")
        choices, gold = sample.meta["choices"], sample.meta["gold"]
        best = max(range(len(known)), key=known.__getitem__)
        per_char = [value / max(1, len(choice)) for value, choice in zip(known, choices, strict=True)]
        best_per_char = max(range(len(known)), key=per_char.__getitem__)
        metrics = {"acc": float(best == gold)}
        if "texts" not in sample.meta:
            metrics["acc_norm"] = float(best_per_char == gold)
        chosen = best_per_char if self.metric == "acc_norm" else best
        return self._by_group(sample, metrics, choices[chosen] if "texts" not in sample.meta else chosen)

    def _by_group(self, sample: Sample, metrics: dict[str, float], extracted: Any) -> Score:
        if self._shape.by_group and "group" in sample.meta:
            metrics = {**metrics, f"{self.metric} {sample.meta['group']}": metrics[self.metric]}
        return Score(metrics, extracted)


def _asked(prompt: Prompt, meta: Any) -> tuple[Request, ...]:
    """One request per choice: the same prompt and another continuation, or (Winogrande) the other way round."""
    chat = not isinstance(prompt, str)
    blank = "" if chat else " "
    prompts: list[Prompt] = [prompt] * len(meta["choices"])
    if "texts" in meta:
        prompts = [({"role": "user", "content": text},) if chat else text for text in meta["texts"]]
    return tuple(
        Request("loglikelihood", one, continuation=blank + choice)
        for one, choice in zip(prompts, meta["choices"], strict=True)
    )
