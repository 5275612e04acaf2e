"""Translation of lm-eval's documents into kleval's requests, and of answers back into lm-eval's results."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from kleval.tokenization import encode_pair
from kleval.types import Completion, Prompt, Request, Tokenizer, UsageError

MAX_NEW_TOKENS = 256  # of lm-eval's hf and vllm backends, where a task names none


class Ask(NamedTuple):
    """One request of a document. instance: lm-eval's form of it, for its filters."""

    request: Request
    instance: Any


def followed(given: Mapping[str, Any], max_new_tokens: int = MAX_NEW_TOKENS) -> tuple[Request, tuple[str, ...]]:
    """A request without a prompt that is written as lm-eval's generation settings say, and those that no kleval backend follows.
    Temperature 0 is greedy."""
    from lm_eval.models.utils import normalize_gen_kwargs

    left: dict[str, Any] = {**normalize_gen_kwargs({**given}, max_new_tokens)}
    until, new, sampled = (left.pop(name) for name in ("until", "max_gen_toks", "do_sample"))
    # transformers' default where a task asks for sampling and no temperature; with 0 lm-eval's backends are greedy.
    asked = float(left.pop("temperature", 1.0))
    form = Request(
        kind="generate",
        prompt="",
        max_new_tokens=new,
        stop=tuple(text for text in until if text),
        temperature=asked if sampled else 0.0,
        top_p=float(left.pop("top_p", 1.0) or 1.0),
    )
    return form, tuple(f"{name}={value}" for name, value in left.items() if (name, value) != ("num_beams", 1))


def words(form: Request | None) -> str:
    """How answers are written, for people. form: None for likelihoods."""
    if form is None:
        return "likelihoods"
    sampled = f"temperature {form.temperature:g}, top_p {form.top_p:g}" if form.temperature else "greedy"
    return f"{sampled}; stops at {', '.join(map(repr, form.stop)) or 'the end of sequence'}"


def ask(task: Any, doc: Mapping[str, Any], chat: bool, form: Request | None) -> tuple[Ask, ...]:
    """The requests of a document. chat: prompts are messages, the examples turns of their own. form: of `followed`."""
    context = task.fewshot_context(
        doc,
        num_fewshot=task.config.num_fewshot or 0,
        system_instruction=None,
        apply_chat_template=chat,
        fewshot_as_multiturn=chat,
        chat_template=(lambda messages, **_: messages) if chat else None,
        gen_prefix=task.doc_to_prefix(doc),
    )
    made = task.construct_requests(
        doc=doc, ctx=context, metadata=(task.config.task, 0, 1), apply_chat_template=chat, chat_template=None
    )
    return tuple(Ask(_request(one, form), one) for one in (made if isinstance(made, list) else [made]))


def _request(instance: Any, form: Request | None) -> Request:
    prompt, prefix = prompt_of(instance.args[0])
    if instance.request_type == "loglikelihood":
        return Request("loglikelihood", prompt, prefix, str(instance.args[1]))
    if form is None:
        raise UsageError(f"lm-eval's request {instance.request_type} cannot be asked through a kleval backend")
    return replace(form, prompt=prompt, answer_prefix=prefix)


def prompt_of(context: Any) -> tuple[Prompt, str]:
    """The prompt and, of messages whose last is the beginning of an answer, that beginning."""
    if isinstance(context, str):
        return context, ""
    messages = [{"role": str(m["role"]), "content": str(m["content"])} for m in context]
    if len(messages) > 1 and messages[-1]["role"] == "assistant":
        return tuple(messages[:-1]), messages[-1]["content"]
    return tuple(messages), ""


def tokens(tokenizer: Tokenizer, asks: Sequence[Ask], form: Request | None) -> tuple[int, int]:
    """Tokens of the longest prompt, and how many may follow it."""
    texts = [tokenizer.render(one.request.prompt, one.request.answer_prefix) for one in asks]
    if form is not None:
        return max(tokenizer.count(text) for text in set(texts)), form.max_new_tokens
    pairs = [encode_pair(tokenizer, text, one.request.continuation) for text, one in zip(texts, asks, strict=True)]
    longest = max(len(tokenizer.encode(text)) for text in set(texts))
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
