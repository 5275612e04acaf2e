"""Reading an answer: its reasoning told apart, stop strings looked for behind it, and an answer that never came called so.

Stop strings end an answer, not what the model thinks before it. An engine knows of no reasoning: where the template opens one, the
request is sent without them, and an answer that one cut in its reasoning is asked for once more without; they are cut here.
Reasoning that the budget cut is a failure where the budget is a short one of kleval's own, or a judge's. With an official budget or
a raised one it is an empty answer, scored as that: a model that thinks without end does not gain by leaving its hard questions out.

The template of a chat endpoint is not known. Whether it opens reasoning shows in the first answer that ends by itself, with a closing
tag alone or with none; until one has come, what may be the beginning of reasoning waits for the others. Where none of them shows it
(a budget that is too short for all), a short question does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from kleval.backends.reasoning import TAGS, closed_alone, first_stop, opened_by, opened_in, split, unwrapped
from kleval.types import Backend, Completion, Failure, Outcome, Request

_END_CHARACTERS = 16  # of the last message, behind which all is the template's
_TAIL_TOKENS = 64  # of a rendered prompt, that hold the opening tag and blanks behind it


@dataclass(frozen=True, slots=True)
class Reading:
    """How the answers to one request are read.

    opened: the tag that the chat template wrote at the end of the prompt, "" for none, None where that is not known here. pairs: of
    tags. excused: whether reasoning that the budget cut is no answer, rather than an empty one. unstopped: sent without stop strings.
    """

    opened: str | None
    pairs: Sequence[tuple[str, str]]
    excused: bool
    unstopped: bool = False

    @classmethod
    def of(cls, request: Request, backend: Backend, pairs: Sequence[tuple[str, str]], excused: bool) -> Reading:
        """A judge's is read with all known tags: what is said of the model's answers does not hold for it."""
        pairs = pairs if request.kind == "generate" else TAGS
        opened = _opened(request, backend, pairs)
        return cls(opened, pairs, excused or request.kind == "judge", unstopped=bool(opened and request.stop))

    def sent(self, request: Request) -> Request:
        return replace(request, stop=()) if self.unstopped else request

    def shows(self, outcome: Outcome) -> str | None:
        """The tag that the server's template opens, as an answer shows it: "" for none, by a whole answer without a closing tag; None
        where it shows nothing, or the template is known."""
        if self.opened is not None or isinstance(outcome, Failure) or outcome.reasoning:
            return None
        whole = outcome.finish_reason == "eos" and bool(outcome.text.strip())
        return closed_alone(outcome.text, self.pairs) or ("" if whole else None)

    def shows_whole(self, outcome: Completion) -> str | None:
        """As `shows`, of an answer that nothing should have cut. Tags of its own say that the template opens none; one that was cut
        without shows nothing. Where its reasoning came apart the server tells it where it ends, and what was cut without any is it.
        """
        if outcome.reasoning:
            return self.pairs[0][0]
        own = any(outcome.text.lstrip().startswith(opening) for opening, _ in self.pairs)
        return "" if own else self.shows(outcome)

    def unsure(self, request: Request, outcome: Outcome) -> bool:
        """Whether an answer may be nothing but the beginning of reasoning that the server's template opened."""
        if (
            self.opened is not None
            or isinstance(outcome, Failure)
            or outcome.reasoning
            or request.kind == "loglikelihood"
        ):
            return False
        stopped = outcome.finish_reason == "stop" and bool(request.stop) and not self.unstopped
        return (stopped or outcome.finish_reason == "length") and split(outcome.text, None, self.pairs) is None

    def read(self, request: Request, outcome: Outcome) -> Outcome | None:
        """The outcome as it is scored; None where a stop string cut it before its answer began."""
        if request.kind == "loglikelihood" or isinstance(outcome, Failure):
            return outcome
        found = split(outcome.text, self.opened, self.pairs)
        if found is not None:
            told = "\n".join(part for part in (outcome.reasoning, found.reasoning) if part)
            outcome = replace(outcome, text=found.answer, reasoning=told)
        elif outcome.reasoning:  # blanks that the server left between it and the answer
            outcome = replace(outcome, text=outcome.text.lstrip())
        if self.pairs:
            outcome = replace(outcome, text=unwrapped(outcome.text))
        unanswered = (bool(outcome.reasoning) and not outcome.text.strip()) or (found is not None and not found.closed)
        if unanswered and outcome.finish_reason == "stop" and not self.unstopped:
            return None
        if unanswered and outcome.finish_reason == "length" and self.excused:
            return Failure(
                "reasoning_cut",
                f"{outcome.output_tokens} tokens of reasoning and no answer: the budget of {request.max_new_tokens} was too small, "
                "raise it with --max-new-tokens",
            )
        at = first_stop(outcome.text, request.stop) if self.unstopped else None
        return outcome if at is None else replace(outcome, text=outcome.text[:at], finish_reason="stop")


def _opened(request: Request, backend: Backend, pairs: Sequence[tuple[str, str]]) -> str | None:
    if not pairs:
        return ""
    if request.answer_prefix:
        return opened_by(request.answer_prefix, pairs)
    renders = getattr(backend, "renders", None)
    if renders is not None and not renders(request):
        return None
    if isinstance(request.prompt, str):
        return opened_by(request.prompt, pairs)
    tail = backend.tokenizer.decode((request.token_ids or ())[-_TAIL_TOKENS:])
    said = request.prompt[-1]["content"].strip()[-_END_CHARACTERS:]
    return opened_by(tail, pairs) or opened_in(tail.rpartition(said)[2] if said and said in tail else "", pairs)
