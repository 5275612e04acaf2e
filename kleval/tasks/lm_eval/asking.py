"""Translation of lm-eval's documents into kleval's requests, and of answers back into lm-eval's results."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from kleval.tokenization import encode_pair
from kleval.types import Completion, Prompt, Request, Tokenizer, UsageError

MAX_NEW_TOKENS = 256  # of lm-eval's hf and vllm backends, where a task names none
_BUDGETS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")


@dataclass(frozen=True, slots=True)
class Ask:
    """One request of a document. arguments: as lm-eval has them, for its filters and logs."""

    kind: Literal["loglikelihood", "generate_until"]
    prompt: Prompt
    answer_prefix: str
    continuation: str
    arguments: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Limits:
    """How an answer is generated. temperature 0 is greedy."""

    max_new_tokens: int
    stop: tuple[str, ...]
    temperature: float
    top_p: float

    def words(self) -> str:
        sampled = f"temperature {self.temperature:g}, top_p {self.top_p:g}" if self.temperature else "greedy"
        return f"{sampled}; stops at {', '.join(map(repr, self.stop)) or 'the end of sequence'}"


def generation(task: Any) -> tuple[Limits | None, tuple[str, ...]]:
    """Limits of a generating task, None for likelihoods; and its settings that no kleval backend follows."""
    if task.OUTPUT_TYPE != "generate_until":
        return None, ()
    given = dict(task.config.generation_kwargs or {})
    budgets = [given.pop(name, None) for name in _BUDGETS]
    until = given.pop("until", None) or []
    temperature = float(given.pop("temperature", 0.0) or 0.0)
    sampled = given.pop("do_sample", None)
    top_p = float(given.pop("top_p", 1.0) or 1.0)
    if sampled is False:
        temperature = 0.0
    elif sampled and not temperature:
        # transformers' default where a task asks for sampling and no temperature; with 0 lm-eval's backends are greedy.
        temperature = 1.0 if "temperature" not in (task.config.generation_kwargs or {}) else 0.0
    stop = tuple(s for s in ([until] if isinstance(until, str) else until) if s)
    max_new = next((int(b) for b in budgets if b is not None), MAX_NEW_TOKENS)
    ignored = tuple(f"{name}={value}" for name, value in given.items() if not (name == "num_beams" and value == 1))
    return Limits(max_new, stop, temperature, top_p), ignored


def ask(task: Any, doc: Mapping[str, Any], chat: bool) -> tuple[Ask, ...]:
    """The requests of a document. chat: prompts are messages, the examples turns of their own."""
    prefix = task.doc_to_prefix(doc)
    context = task.fewshot_context(
        doc,
        num_fewshot=task.config.num_fewshot or 0,
        system_instruction=None,
        apply_chat_template=chat,
        fewshot_as_multiturn=chat,
        chat_template=_messages if chat else None,
        gen_prefix=prefix,
    )
    made = task.construct_requests(
        doc=doc, ctx=context, metadata=(task.config.task, 0, 1), apply_chat_template=chat, chat_template=None
    )
    return tuple(_ask(instance) for instance in (made if isinstance(made, list) else [made]))


def _messages(messages: list[dict[str, str]], add_generation_prompt: bool) -> list[dict[str, str]]:
    return messages


def _ask(instance: Any) -> Ask:
    context, what = instance.args[0], instance.args[1]
    prompt, prefix = _prompt(context)
    if instance.request_type == "loglikelihood":
        return Ask("loglikelihood", prompt, prefix, str(what), instance.args)
    if instance.request_type == "generate_until":
        return Ask("generate_until", prompt, prefix, "", instance.args)
    raise UsageError(f"lm-eval's request {instance.request_type} cannot be asked through a kleval backend")


def _prompt(context: Any) -> tuple[Prompt, str]:
    """The prompt and, of messages whose last is the beginning of an answer, that beginning."""
    if isinstance(context, str):
        return context, ""
    messages = [{"role": str(m["role"]), "content": str(m["content"])} for m in context]
    if len(messages) > 1 and messages[-1]["role"] == "assistant":
        return tuple(messages[:-1]), messages[-1]["content"]
    return tuple(messages), ""


def request(ask: Ask, limits: Limits | None) -> Request:
    if ask.kind == "loglikelihood":
        return Request("loglikelihood", ask.prompt, ask.answer_prefix, ask.continuation)
    assert limits is not None
    return Request(
        "generate",
        ask.prompt,
        ask.answer_prefix,
        max_new_tokens=limits.max_new_tokens,
        stop=limits.stop,
        temperature=limits.temperature,
        top_p=limits.top_p,
    )


def tokens(tokenizer: Tokenizer, asks: Sequence[Ask], limits: Limits | None) -> tuple[int, int]:
    """Tokens of the longest prompt, and how many may follow it."""
    rendered: dict[int, str] = {}
    for position, one in enumerate(asks):
        same = next((p for p in rendered if asks[p].prompt == one.prompt), None)
        rendered[position] = tokenizer.render(one.prompt, one.answer_prefix) if same is None else rendered[same]
    if limits is not None:
        return max(tokenizer.count(text) for text in set(rendered.values())), limits.max_new_tokens
    pairs = [encode_pair(tokenizer, rendered[p], one.continuation) for p, one in enumerate(asks)]
    longest = max(len(tokenizer.encode(text)) for text in set(rendered.values()))
    return max(longest, *(len(head) for head, _ in pairs)), max(len(tail) for _, tail in pairs)


def references(task: Any, doc: Mapping[str, Any]) -> tuple[str, ...]:
    """What a right answer is, as text."""
    choices = list(task.doc_to_choice(doc)) if task.config.doc_to_choice is not None else []
    target = task.doc_to_text(doc) if task.multiple_input else task.doc_to_target(doc)
    found = target if isinstance(target, list) else [target]
    with contextlib.suppress(IndexError):
        return tuple(str(choices[t]) if isinstance(t, int) and choices else str(t) for t in found)
    return tuple(str(t) for t in found)


def response(answer: Completion) -> Any:
    """An answer as lm-eval's backends give it: the text, or (log-probability, whether it is the argmax)."""
    if answer.logprob_sum is None:
        return answer.text
    return answer.logprob_sum, bool(answer.greedy)


def readable(filtered: Sequence[Any]) -> Any:
    """What the filters left of the answers, as JSON: the text; of likelihoods the position of the highest."""
    if filtered and all(isinstance(f, tuple) for f in filtered):
        sums = [float(f[0]) for f in filtered]
        return sums.index(max(sums)) if len(sums) > 1 else sums[0]
    values = [list(map(str, f)) if isinstance(f, list | tuple) else str(f) for f in filtered]
    return values[0] if len(values) == 1 else values


def number(value: Any) -> float | None:
    """A metric's value; None when it is not one number."""
    try:
        return math.nan if value is None else float(value)
    except (TypeError, ValueError):
        return None


def example_state(task: Any) -> Any:
    """Where the generator that draws a task's examples is."""
    rnd = getattr(getattr(task, "sampler", None), "rnd", None)
    return rnd.getstate() if rnd is not None else None


def set_example_state(task: Any, state: Any) -> None:
    if state is not None:
        task.sampler.rnd.setstate(state)
