"""Paired likelihood: how much more probable a task's reference is behind the whole prompt than behind the question alone.

`--protocol likelihood` asks every sample for the log-probability of each of its references twice, behind the whole prompt and behind
the same prompt without its context, and scores the difference per token of the reference: `gain`, in nats per token, above 0 where the
context helps. It is the pointwise conditional cross-mutual information of Fernandes et al. (2021, arXiv 2105.03482) over the number of
tokens, and says something of a model whose answers are all wrong.

- The reference stands where an answer would: behind the answer prefix, or as the assistant's message of a chat template; behind a text
  that ends in a word a blank stands between. Tokens are those of `kleval.tokenization.encode_pair`. What an answer ends with is not
  scored.
- Several references are each scored by themselves, and all their tokens weigh the same: of alternatives as of parts of an answer. Parts
  that a task wants in an order are one text, its `whole_answer(sample)`.
- A reference that does not fit is a failure (context_overflow), none is cut; so is one that has other tokens behind the question alone.

A task knows its question alone by `question_alone(sample) -> Prompt`. The protocol is `likelihood-1:NAME`, NAME being the task's own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from kleval.tasks.own.code import digests
from kleval.types import (
    LIKELIHOOD,
    NATS,
    Completion,
    Failure,
    Prompt,
    Request,
    Sample,
    Score,
    Task,
    Tokenizer,
    Unfit,
    UsageError,
)

PROTOCOL = "likelihood"
VERSION = f"{LIKELIHOOD}1"
METRIC = "gain"
_OPEN = re.compile(r"\{[\w-]+\}|\$[A-Z_]+\$")


class Likelihood:
    """A task whose references are scored. UsageError for one that does not know its question alone, or has no context beside it."""

    metric, unit, needs_likelihoods = METRIC, NATS, True
    needs_judge = needs_code_execution = False

    def __init__(self, task: Task) -> None:
        if not callable(getattr(task, "question_alone", None)):
            lacks, mend = "has no context apart from its question", ""
            if getattr(task, "grows", True):
                lacks = "does not say what its question is without a context"
                mend = ", or write its question_alone(sample) (docs/likelihood.md)"
            raise UsageError(f"{task.id} {lacks}, which --protocol {PROTOCOL} compares with: leave it out{mend}")
        self._task = task
        self.protocol = f"{VERSION}:{task.protocol}"
        self.code = digests(task)[0], ""

    def __getattr__(self, name: str) -> Any:
        if name == "_task":
            raise AttributeError(name)
        return getattr(self._task, name)

    @property
    def unwrapped(self) -> Task:
        return self._task

    def samples(self, tokenizer: Tokenizer, ctx: int, n: int, seed: int) -> Iterator[Sample | Unfit]:
        return self._paired(self._task.samples(tokenizer, ctx, n, seed), tokenizer)

    def samples_at(
        self, tokenizer: Tokenizer, ctx: int, indices: Sequence[int], seed: int
    ) -> Iterator[Sample | Unfit] | None:
        make = getattr(self._task, "samples_at", None)
        found = None if make is None else make(tokenizer, ctx, indices, seed)
        return None if found is None else self._paired(found, tokenizer)

    def counts(self) -> None:
        """What the official cards count is what generating asks."""

    def card(self) -> dict[str, Any]:
        card: dict[str, Any] = getattr(self._task, "card", dict)()
        said = {"metric": f"{METRIC}: nats per token of the reference", "protocol": self.protocol}
        return {**card, **said, "max_new_tokens": "none: references are scored"}

    def step(self, sample: Sample, outcomes: Sequence[Completion]) -> Sequence[Request] | Score | Failure:
        """Each reference behind the prompt, then each behind the question alone."""
        texts = self._texts(sample)
        if outcomes:
            return _scored(texts, outcomes)
        prompts = (sample.prompt, as_prompt(sample.meta["question_alone"]))
        return [
            Request("loglikelihood", prompt, sample.answer_prefix, between + text)
            for prompt, between in zip(prompts, sample.meta["between"], strict=True)
            for text in texts
        ]

    def _paired(self, made: Iterator[Sample | Unfit], tokenizer: Tokenizer) -> Iterator[Sample | Unfit]:
        """With the question alone, and what stands between a prompt and an answer."""
        for one in made:
            if isinstance(one, Unfit):
                yield one
                continue
            if not self._texts(one):
                raise UsageError(
                    f"{one.id} has no reference text, which --protocol {PROTOCOL} scores: leave {one.task} out"
                )
            try:
                alone: Prompt = self._task.question_alone(one)  # type: ignore[attr-defined]
            except ValueError as error:
                why = f"{one.id}: {error}, so --protocol {PROTOCOL} cannot ask it: leave {one.task} out"
                raise UsageError(why) from error
            own = {
                "question_alone": alone if isinstance(alone, str) else [dict(message) for message in alone],
                "between": [between(prompt, one.answer_prefix, tokenizer) for prompt in (one.prompt, alone)],
            }
            yield replace(one, meta={**one.meta, **own})

    def _texts(self, sample: Sample) -> tuple[str, ...]:
        """What is scored."""
        whole = getattr(self._task, "whole_answer", None)
        return tuple(text for text in ((whole(sample),) if whole else sample.references) if text)


def between(prompt: Prompt, answer_prefix: str, tokenizer: Tokenizer) -> str:
    """What stands between a prompt and an answer: nothing where an assistant's message begins, or behind white space; else a blank,
    which tokenizers join to the word behind it and not to what is before."""
    if isinstance(prompt, str) or answer_prefix:
        text = answer_prefix or str(prompt)
        return "" if not text or text[-1].isspace() else " "
    return "" if tokenizer.chat_template_digest or prompt[-1]["content"][-1:].isspace() else " "


def without(prompt: Prompt, template: str, place: str, demonstrated: bool = False) -> Prompt:
    """The prompt without what its last message (or text) has at a place of the template that it was made from.

    Other places of the template, like `{name}` or `$NAME$`, may hold anything. demonstrated: a solved example of the same form may
    stand before it. ValueError for a prompt of another form.
    """
    if not isinstance(prompt, str):
        last = prompt[-1]
        text = without(last["content"], template, place, demonstrated)
        return (*prompt[:-1], {**last, "content": text})  # type: ignore[dict-item]
    head, _, tail = template.partition(place)
    before, after = _OPEN.split(head)[-1], _OPEN.split(tail)[0]
    end = prompt.rfind(after) if after else len(prompt)
    start = prompt.rfind(before, 0, end) if demonstrated else prompt.find(before)
    if start < 0 or end < start + len(before):
        raise ValueError("the prompt is not of its template's form: its context is not found")
    return prompt[: start + len(before)] + prompt[end:]


def as_prompt(stored: Any) -> Prompt:
    """A prompt out of JSON."""
    return stored if isinstance(stored, str) else tuple(stored)


def _scored(texts: Sequence[str], outcomes: Sequence[Completion]) -> Score | Failure:
    each: list[dict[str, float]] = []
    for text, known, bare in zip(texts, outcomes[: len(texts)], outcomes[len(texts) :], strict=True):
        n = known.output_tokens
        if bare.output_tokens != n:
            why = f"{text[:60]!r} is {n} tokens behind the prompt and {bare.output_tokens} behind the question alone"
            return Failure("internal", f"a reference is cut into other tokens, and cannot be compared: {why}")
        sums = {"logprob_context": known.logprob_sum or 0.0, "logprob_question": bare.logprob_sum or 0.0}
        each.append({"tokens": n, **sums})
    total = {name: sum(one[name] for one in each) for name in each[0]}
    nll = {f"nll_{of}": -total[f"logprob_{of}"] / total["tokens"] for of in ("context", "question")}
    references = [{**one, METRIC: _gain(one)} for one in each]
    return Score({METRIC: _gain(total), **nll}, extracted={**total, "references": references})


def _gain(of: Mapping[str, float]) -> float:
    return (of["logprob_context"] - of["logprob_question"]) / of["tokens"]


def inner(protocol: str | None) -> str | None:
    """What `likelihood`, `likelihood:NAME` and a stored `likelihood-1:NAME` are of: NAME, "" for a task's default; None for another
    protocol. UsageError for another version."""
    if protocol is None or not re.match(rf"{PROTOCOL}(-\d+)?(:|$)", protocol):
        return None
    name, _, own = protocol.partition(":")
    if name not in (PROTOCOL, VERSION):
        raise UsageError(f"this kleval has no protocol {name}: there is {VERSION}")
    return own
