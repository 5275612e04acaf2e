"""kleval's tasks inside lm-eval: the class that the YAML files of `include` name.

    lm_eval run --model hf --model_args pretrained=DIR --include_path $(kleval path lm-eval) --tasks kleval_ruler \\
        --metadata '{"max_seq_lengths": [4096, 131072]}'

Samples are made by kleval for every length, in the tokenizer of the model (`tokenizer`, else `pretrained` or `model` among the
model's arguments), builtin edition unless the metadata say otherwise; scores are those of kleval's task. Every document gives
`score` and the same under its length ("131072"), so that a length has its own mean and lengths that were not asked for do not
appear. The documents in lm-eval's logs hold no text; the prompt is in their arguments.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lm_eval.api.instance import Instance
from lm_eval.api.metrics import mean
from lm_eval.api.task import ConfigurableTask

from kleval.lengths import parse_lengths
from kleval.tasks.datafile import one_line
from kleval.tasks.registry import load_task
from kleval.tokenization import KINDS, check_growth, join_prompt, load_tokenizer
from kleval.types import Completion, ContextTooSmall, Request, Sample, Score, Task, Tokenizer, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

DEFAULT_LENGTHS = (4096,)
DEFAULT_SAMPLES = 100
DEFAULT_SEED = 42
_TOKENIZER_FILES = ("tokenizer*", "chat_template.jinja", "tiktoken.model", "special_tokens_map.json")
_FACTS = ("id", "version", "metric", "edition", "protocol", "data_revision", "data_digest")
_log = logging.getLogger("lm_eval.kleval")


class GeneratedTask(ConfigurableTask):
    """metadata: kleval_task (an id); max_seq_lengths (tokens, or texts as "128k"), num_samples per length, edition, protocol,
    seed, data_dir (of the official edition), tokenizer (a folder, a hub id, `words`, `tiktoken:NAME`)."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        given = dict(config.get("metadata") or {})
        data_dir = given.get("data_dir")
        self._kleval: Task = load_task(
            str(given["kleval_task"]),
            str(given.get("edition", "builtin")),
            given.get("protocol"),
            Path(data_dir) if data_dir else None,
        )
        if getattr(self._kleval, "needs_judge", False) or getattr(self._kleval, "needs_code_execution", False):
            raise UsageError(f"{self._kleval.id} ({self._kleval.protocol}) cannot be scored by lm-eval: use kleval run")
        self._samples: list[Sample] = _make(self._kleval, given)
        self._requests: list[Request] = [_only_request(self._kleval, sample) for sample in self._samples]
        self._names: dict[str, None] = {"score": None}
        super().__init__(
            config={
                "task": config["task"],
                "output_type": "generate_until",
                "test_split": "test",
                "num_fewshot": 0,
                "doc_to_text": "id",
                "doc_to_target": "references",
                "generation_kwargs": {"until": [], "do_sample": False},
                "metadata": {
                    **given,
                    "version": given.get("version"),
                    "kleval": {name: getattr(self._kleval, name) for name in _FACTS},
                },
            }
        )

    def download(self, *args: Any, **kwargs: Any) -> None:
        import datasets

        rows = [
            {"index": at, "id": s.id, "length": s.ctx, "references": list(s.references), "prompt_hash": s.prompt_hash}
            for at, s in enumerate(self._samples)
        ]
        self.dataset = {"test": datasets.Dataset.from_list(rows)}

    def fewshot_context(
        self,
        doc: Mapping[str, Any],
        system_instruction: str | None = None,
        apply_chat_template: bool = False,
        chat_template: Callable[..., str] | None = None,
        **of_examples: Any,
    ) -> str:
        """The prompt with what the answer begins with, through the model's chat template where lm-eval applies it."""
        request = self._requests[doc["index"]]
        prompt, prefix = request.prompt, request.answer_prefix
        if not apply_chat_template or chat_template is None:
            before = f"{system_instruction}\n\n" if system_instruction else ""
            return before + join_prompt(prompt, prefix)
        system = [{"role": "system", "content": system_instruction}] if system_instruction else []
        messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else [dict(m) for m in prompt]
        begun = [{"role": "assistant", "content": prefix}] if prefix else []
        return chat_template([*system, *messages, *begun], add_generation_prompt=not begun)

    def construct_requests(self, doc: Mapping[str, Any], ctx: str, **kwargs: Any) -> Instance:
        request = self._requests[doc["index"]]
        settings = {"until": list(request.stop), "max_gen_toks": request.max_new_tokens, "do_sample": False}
        if request.temperature:
            settings |= {"do_sample": True, "temperature": request.temperature, "top_p": request.top_p}
        return Instance("generate_until", doc, (ctx, settings), 0, kwargs["metadata"])

    def process_results(self, doc: Mapping[str, Any], results: Sequence[str]) -> dict[str, float]:
        sample = self._samples[doc["index"]]
        score = self._kleval.step(sample, (Completion(results[0], sample.prompt_tokens, 0),))
        if not isinstance(score, Score):
            raise UsageError(f"{self._kleval.id} has no score for an answer of {len(results[0])} characters: {score}")
        found = {name: value for name, value in score.metrics.items() if not math.isnan(value)}
        headline = found.pop(self._kleval.metric, math.nan)
        found |= {"score": headline, str(sample.ctx): headline}
        self._names.update(dict.fromkeys(found))
        return found

    def aggregation(self) -> dict[str, Any]:
        return dict.fromkeys(self._names, mean)

    def higher_is_better(self) -> dict[str, bool]:
        return dict.fromkeys(self._names, True)


def _make(task: Task, given: Mapping[str, Any]) -> list[Sample]:
    """Samples of every length, shortest first. A length at which the task does not fit is left out, with a warning."""
    tokenizer = tokenizer_of(given)
    n, seed = _number(given, "num_samples", DEFAULT_SAMPLES, 1), _number(given, "seed", DEFAULT_SEED, 0)
    made: list[Sample] = []
    small: ContextTooSmall | None = None
    ctxs = lengths(given.get("max_seq_lengths", DEFAULT_LENGTHS))
    check_growth(tokenizer, max(ctxs, default=1024))
    for ctx in ctxs:
        try:
            stream = (s for s in task.samples(tokenizer, ctx, n, seed) if isinstance(s, Sample))
            made += islice(stream, n)
        except ContextTooSmall as error:
            small = error
            _log.warning("%s is left out at %d tokens: %s", task.id, ctx, error)
    if not made:
        raise small or UsageError(f"{task.id} has no sample that fits into the lengths in max_seq_lengths")
    return made


def _number(given: Mapping[str, Any], name: str, default: int, least: int) -> int:
    text = str(given.get(name, default))
    if not text.isdecimal() or int(text) < least:
        raise UsageError(f"{name} is a whole number from {least} on, not {text!r}")
    return int(text)


def _only_request(task: Task, sample: Sample) -> Request:
    step = task.step(sample, ())
    if isinstance(step, Sequence) and len(step) == 1 and step[0].kind == "generate":
        return step[0]
    raise UsageError(f"{task.id} ({task.protocol}) takes more than one generated answer: use kleval run")


def lengths(given: Any) -> list[int]:
    """Context lengths in tokens from what a user wrote: 4096, "128k", "4k,1m", "4k-1m*2" or a list of such."""
    try:
        return sorted(parse_lengths(",".join(map(str, given)) if isinstance(given, list | tuple) else str(given)))
    except UsageError as error:
        raise UsageError(f"max_seq_lengths: {error}") from None


def tokenizer_of(given: Mapping[str, Any]) -> Tokenizer:
    """The tokenizer in which lengths count. UsageError when none is named or it cannot be had."""
    named = next(
        (v for key in ("tokenizer", "pretrained", "model") if isinstance(v := given.get(key), str) and v), None
    )
    if named is None:
        raise UsageError(
            "kleval's tasks are made to a length in the model's tokenizer: name it, --metadata '{\"tokenizer\": \"DIR or hub id\"}'"
        )
    folder = Path(named).expanduser()
    if not folder.is_dir():
        if ":" in named or named in KINDS:
            return load_tokenizer(named)
        import huggingface_hub

        try:
            folder = Path(huggingface_hub.snapshot_download(named, allow_patterns=list(_TOKENIZER_FILES)))
        except Exception as error:  # of the hub's client and of its HTTP library
            why = f"is no folder here and cannot be had from the hub: {one_line(error)}"
            raise UsageError(f"the tokenizer {named} {why}") from error
    return load_tokenizer(f"hf:{folder}")
