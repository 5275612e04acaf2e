"""`lm_eval/NAME`: a task of lm-eval, asked through any kleval backend.

Prompts come from lm-eval's own pipeline (process_docs, templates, few-shot examples drawn with its seed 1234 for one document
after the other, so that document 7 has the examples it has there), scores from its filters and `process_results`. What
kleval does itself is asking: likelihoods of the choices or a generated answer, `repeats` times where a task's filters want
several. Protocol `lm-eval-VERSION` is `lm_eval run --apply_chat_template` (examples as turns) where the tokenizer has a chat
template and plain text where it has none; `lm-eval-VERSION-plain` is plain text always. Metrics are named as in lm-eval, the
filter behind a comma unless it is `none`; those whose aggregation is not the mean over samples are left out.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kleval.tasks.base import InOrder
from kleval.tasks.cards import Card, head
from kleval.tasks.lm_eval import asking, loading, task_index
from kleval.tasks.lm_eval.asking import Ask
from kleval.tasks.registry import check_protocol
from kleval.types import Completion, Request, Sample, Score, Tokenizer, Unfit, UsageError


class LmEvalTask(InOrder):
    grows = False

    def __init__(self, task_id: str, protocol: str | None, data_dir: Path | None) -> None:
        name, shots = task_index.parse(task_id)
        installed = task_index.version()
        self.id = task_id
        self.edition = "official"
        plain = f"lm-eval-{installed}-plain"
        self.protocol = check_protocol(task_id, protocol, (f"lm-eval-{installed}", plain))
        self._plain = self.protocol == plain
        self._name, fetched_by = name, task_index.asked_as(task_id).partition(":")[0]
        task, found = loading.load(name, shots, data_dir, fetched_by)
        self._task, self.version = task, str(task.VERSION)
        self.data_revision, self.data_digest = found.revision, found.digest
        self._docs = task.task_docs
        # What has been asked of lm-eval so far, for each way of writing prompts, and its random numbers for the examples.
        self._built: dict[bool, tuple[list[tuple[Ask, ...]], Any]] = {}
        self._metrics = _Metrics.of(name, task)
        self.metric = self._metrics.headline
        self._repeats = _repeats(task)
        self._form: Request | None = None
        self._ignored: tuple[str, ...] = ()
        if task.OUTPUT_TYPE == "generate_until":
            self._form, self._ignored = asking.followed(task.config.generation_kwargs or {})
        self.description = f"lm-eval's {name}, {task.config.num_fewshot}-shot, {len(self._docs):,} documents"

    def _samples(self, tokenizer: Tokenizer, ctx: int, seed: int) -> Iterator[Sample | Unfit]:
        """Documents in lm-eval's order. seed: not used, lm-eval draws its examples with a seed of its own."""
        chat = bool(tokenizer.chat_template_digest) and not self._plain
        for index in range(len(self._docs)):
            asks = self._asks(index, chat)
            prompt_tokens, new = asking.tokens(tokenizer, asks, self._form)
            if prompt_tokens + new > ctx:
                why = f"{self.id} document {index} needs {prompt_tokens} + {new} tokens"
                yield Unfit(index, why, prompt_tokens + new)
                continue
            doc, first = self._docs[index], asks[0].request
            digest, own = _doc_hash(doc), "-plain" if self._plain else ""
            yield Sample(
                id=f"{self.id}@{self.edition}-{self.version}{own}/{ctx}/i{index}-{digest[:12]}",
                task=self.id,
                ctx=ctx,
                index=index,
                prompt=first.prompt,
                references=asking.references(self._task, doc),
                max_new_tokens=new,
                prompt_tokens=prompt_tokens,
                answer_prefix=first.answer_prefix,
                stop=first.stop,
                meta={"doc_id": index, "doc_hash": digest, "chat": chat, "shots": self._task.config.num_fewshot},
            )

    def step(self, sample: Sample, outcomes: Sequence[Completion]) -> Sequence[Request] | Score:
        asks = self._asks(sample.index, not isinstance(sample.prompt, str))
        if outcomes:
            return self._score(sample.index, asks, outcomes)
        return [ask.request for ask in asks for _ in range(self._repeats)]

    def card(self) -> dict[str, Any]:
        """What the task is and where it comes from; JSON values."""
        config, said = self._task.config, Card("lm_eval", (), self.edition, self.protocol)
        return {
            **head(self, f"lm-eval {task_index.version()}, task {self._name}"),
            "data": " ".join(str(p) for p in (config.dataset_path, config.dataset_name) if p),
            "shots": config.num_fewshot,
            "repeats": self._repeats,
            "output_type": config.output_type,
            "metric": f"{self.metric}; also {', '.join(self._metrics.others) or 'none'}",
            "left_out": list(self._metrics.left_out),
            "max_new_tokens": "the longest choice" if self._form is None else self._form.max_new_tokens,
            "limits": asking.words(self._form),
            "deviations": [
                *said.texts("deviations"),
                *(f"generation setting {what} is not followed" for what in self._ignored),
            ],
            "defects": [text for mark, text in said.table("defects").items() if re.search(mark, self._name)],
        }

    def _asks(self, index: int, chat: bool) -> tuple[Ask, ...]:
        """What document `index` asks for. Made in order, since the examples of one depend on how many were drawn before."""
        sampler = getattr(self._task, "sampler", None)
        if chat not in self._built:
            self._task.set_fewshot_seed(loading.FEWSHOT_SEED)
            self._built[chat] = [], getattr(sampler, "rnd", None)
        asks, numbers = self._built[chat]
        if sampler is not None:
            sampler.rnd = numbers
        while len(asks) <= index:
            asks.append(asking.ask(self._task, self._docs[len(asks)], chat, self._form))
        return asks[index]

    def _score(self, index: int, asks: Sequence[Ask], outcomes: Sequence[Completion]) -> Score:
        doc = self._docs[index]
        instances = []
        for position, one in enumerate(asks):
            answers = outcomes[position * self._repeats : (position + 1) * self._repeats]
            instance = copy.copy(one.instance)
            instance.arguments = copy.deepcopy(one.instance.arguments)
            instance.resps, instance.filtered_resps = [asking.response(answer) for answer in answers], {}
            instances.append(instance)
        for ensemble in self._task._filters:
            ensemble.apply(instances)
        metrics: dict[str, float] = {}
        extracted: dict[str, Any] = {}
        for name in instances[0].filtered_resps:
            filtered = [instance.filtered_resps[name] for instance in instances]
            extracted[name] = asking.readable(filtered)
            found = self._task.process_results(doc, copy.deepcopy(filtered))
            metrics |= self._metrics.read(found, name, self._task)
        return Score(metrics, extracted=next(iter(extracted.values())) if len(extracted) == 1 else extracted)


@dataclass(frozen=True, slots=True)
class _Metrics:
    """headline, others: names of the metrics that are means over samples; left_out: those that are not."""

    headline: str
    others: tuple[str, ...]
    left_out: tuple[str, ...]

    @classmethod
    def of(cls, name: str, task: Any) -> _Metrics:
        """The headline is the first metric that the task lists (acc_norm before acc, where it has both), in its first
        filter. UsageError when it has none that is a mean and better when higher."""
        better = task.higher_is_better()
        kept = [m for m in task.aggregation() if _is_mean(task, m)]
        heads = [m for m in kept if better.get(m, True)]
        if not heads:
            listed = ", ".join(task.aggregation()) or "none"
            raise UsageError(
                f"lm-eval's {name} has no metric that is a mean of scores per sample (it has {listed}): use lm-eval"
            )
        head = "acc_norm" if "acc_norm" in heads else heads[0]
        filters = [ensemble.name for ensemble in task._filters]
        named = [_metric_name(m, f) for m in [head, *(m for m in kept if m != head)] for f in filters]
        return cls(named[0], tuple(named[1:]), tuple(m for m in task.aggregation() if m not in kept))

    def read(self, found: Mapping[str, Any], filter_name: str, task: Any) -> dict[str, float]:
        """What process_results gave, as numbers; what is no mean or, other than the headline, not within [0, 1] is left out."""
        metrics = {}
        for metric, value in found.items():
            name = _metric_name(metric, filter_name)
            number = asking.number(value) if _is_mean(task, metric) else None
            if number is not None and (name == self.headline or not (number < 0 or number > 1)):
                metrics[name] = number
        return metrics


def _is_mean(task: Any, metric: str) -> bool:
    from lm_eval.api.metrics import mean

    # lm-eval takes the mean of what it has no aggregation for.
    return task.aggregation().get(metric, mean) is mean


def _metric_name(metric: str, filter_name: str) -> str:
    return metric if filter_name == "none" else f"{metric},{filter_name}"


def _repeats(task: Any) -> int:
    """How often lm-eval asks each request; once where it would look at the first answer only."""
    if task.config.filter_list is None:
        return 1
    functions = [step["function"] for ensemble in task.config.filter_list for step in ensemble["filter"]]
    several = any(f not in ("regex", "take_first", "remove_whitespace", "lowercase", "uppercase") for f in functions)
    return int(task.config.repeats or 1) if several else 1


def _doc_hash(doc: Mapping[str, Any]) -> str:
    """sha256 (hex) of a document, as lm-eval's logs have it."""
    from lm_eval.utils import handle_non_serializable, hash_string

    return str(hash_string(json.dumps(doc, indent=2, default=handle_non_serializable, ensure_ascii=False)))
