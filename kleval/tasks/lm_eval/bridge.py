"""A kleval backend as a model of lm-eval: `simple_evaluate(model=KlevalLM(backend), tasks=["gsm8k"])`.

Prompts reach the backend as the token ids that lm-eval's own rules give (`TemplateLM._encode_pair`; an empty context is the
beginning of sequence, else the end of sequence). Other than lm-eval's backends it cuts nothing on the left and makes no answer
up: what does not fit or fails after its retries raises AnswerFailed, naming the request.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from kleval.packages import install_line
from kleval.tasks.lm_eval.asking import MAX_NEW_TOKENS, followed, prompt_of
from kleval.tokenization import Rendered
from kleval.tokenization.pairs import prefix_id
from kleval.types import Backend, Completion, Failure, Outcome, Request, UsageError

try:
    from lm_eval.api.model import TemplateLM
    from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
except ImportError as error:
    raise UsageError(f"KlevalLM needs lm-eval: {install_line('lm-eval')}") from error

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance


class AnswerFailed(RuntimeError):
    """A request has no answer. failure: why."""

    def __init__(self, what: str, failure: Failure) -> None:
        super().__init__(f"{what} has no answer ({failure.kind}): {failure.message}")
        self.failure = failure


class KlevalLM(TemplateLM):
    """max_gen_toks: new tokens where a task names no number. seed: of sampling, with the number of the request.

    retries: how often what may pass is asked again, after waits of retry_seconds, doubled each time.
    """

    def __init__(
        self,
        backend: Backend,
        max_gen_toks: int = MAX_NEW_TOKENS,
        seed: int = 0,
        retries: int = 3,
        retry_seconds: float = 1.0,
    ) -> None:
        super().__init__()
        self._backend = backend
        self._tokenizer = backend.tokenizer
        self.max_gen_toks = max_gen_toks
        self._seed, self._n_generated = seed, 0
        self._retries, self._retry_seconds = retries, retry_seconds

    @property
    def eot_token_id(self) -> int:
        end: int | None = getattr(self._tokenizer, "eos_id", None)
        return prefix_id(self._tokenizer) if end is None else end

    @property
    def prefix_token_id(self) -> int:
        return prefix_id(self._tokenizer)

    @property
    def max_length(self) -> int | None:
        return self._backend.max_ctx

    @property
    def tokenizer_name(self) -> str:
        return f"{self._tokenizer.name}-{self._tokenizer.digest[:12]}-{self._tokenizer.chat_template_digest[:12]}"

    def get_model_info(self) -> dict[str, Any]:
        """For lm-eval's results file."""
        return {"kleval_model": self._backend.model, "kleval_backend": self._backend.describe()}

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: Any) -> list[int]:
        begin: str = "" if add_special_tokens is False else getattr(self._tokenizer, "begin", "")
        return self._tokenizer.encode(Rendered.of(begin, string))

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        """The template is the tokenizer's own; lm-eval records what this returns."""
        if not chat_template:
            return None
        self._check_template()
        return f"sha256:{self._tokenizer.chat_template_digest}"

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """Without add_generation_prompt the last message is the beginning of the answer."""
        self._check_template()
        if add_generation_prompt:
            return self._tokenizer.render(tuple(chat_history))
        return self._tokenizer.render(*prompt_of(chat_history))

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """Log-probability of whole texts, in windows of the model's length where they are longer."""
        windows: list[tuple[tuple[str, str], list[int], list[int]]] = []
        owner: list[int] = []
        for position, instance in enumerate(requests):
            (text,) = instance.args
            ids = self.tok_encode(text)
            longest = self.max_length or len(ids) + 1
            for pair in get_rolling_token_windows(ids, self.prefix_token_id, longest, 1):
                head, tail = make_disjoint_window(pair)
                windows.append((("", text), head, tail))
                owner.append(position)
        sums = [0.0] * len(requests)
        for position, (logprob, _) in zip(owner, self._loglikelihood_tokens(windows), strict=True):
            sums[position] += logprob
        for instance, total in zip(requests, sums, strict=True):
            self.cache_hook.add_partial("loglikelihood_rolling", instance.args, total)
        return sums

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        asked: list[Request] = []
        for instance in requests:
            context, given = instance.args[0], instance.args[1]
            form, unknown = followed(given, self.max_gen_toks)
            if unknown:
                raise UsageError(f"kleval backends do not follow the generation settings {', '.join(unknown)}")
            seed = self._seed + self._n_generated + len(asked)
            asked.append(replace(form, prompt=context, seed=seed, token_ids=tuple(self.tok_encode(context))))
        self._n_generated += len(asked)
        texts = [answer.text for answer in self._answers(asked)]
        for instance, text in zip(requests, texts, strict=True):
            self.cache_hook.add_partial("generate_until", instance.args, text)
        return texts

    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[tuple[str, str], list[int], list[int]]], **kwargs: Any
    ) -> list[tuple[float, bool]]:
        asked = [
            Request(
                "loglikelihood", texts[0], continuation=texts[1], token_ids=tuple(head), continuation_ids=tuple(tail)
            )
            for texts, head, tail in requests
        ]
        found = []
        for answer in self._answers(asked):
            if answer.logprob_sum is None or answer.greedy is None:
                raise UsageError(f"the backend {self._backend.name} gives no likelihoods: choose tasks that generate")
            found.append((answer.logprob_sum, answer.greedy))
        for (texts, _, _), pair in zip(requests, found, strict=True):
            self.cache_hook.add_partial("loglikelihood", texts, pair)
        return found

    def _answers(self, requests: Sequence[Request]) -> list[Completion]:
        """Every answer in order, after retries. AnswerFailed for the first that has none."""
        done: dict[int, Outcome] = {}
        open_ = list(range(len(requests)))
        for attempt in range(self._retries + 1):
            if attempt:
                time.sleep(self._retry_seconds * 2 ** (attempt - 1))
            done |= {open_[at]: outcome for at, outcome in self._backend.run([requests[p] for p in open_])}
            open_ = [p for p in open_ if isinstance(o := done.get(p), Failure) and o.retryable]
            if not open_:
                break
        answers = []
        for position, request in enumerate(requests):
            outcome = done.get(position, Failure("internal", f"{self._backend.name} gave no outcome"))
            if isinstance(outcome, Failure):
                raise AnswerFailed(f"request {position} of {len(requests)} ({request.kind})", outcome)
            answers.append(outcome)
        return answers

    def _check_template(self) -> None:
        if not self._tokenizer.chat_template_digest:
            raise UsageError(
                f"the tokenizer {self._tokenizer.name} has no chat template: leave out --apply_chat_template"
            )
