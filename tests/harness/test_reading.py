"""Reasoning through the whole harness: what is scored, what is kept, what is a failure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
from harness_fakes import EchoBackend, OneCall, WordTokenizer, go, loader, rows, spec

from kleval.harness import run
from kleval.tables.answers import condition
from kleval.types import Completion, Request, Sample, Score, UsageError


@dataclass
class Says(EchoBackend):
    """Always the same text, cut before a stop string and after `cut` words."""

    text: str = ""
    cut: int | None = None
    renders_here: bool = True
    asked: list[Request] = field(default_factory=list)

    def renders(self, request: Request) -> bool:
        return self.renders_here

    def answer(self, request: Request) -> Completion:
        self.asked.append(request)
        text, finish = self.text, "eos"
        stops = [text.index(stop) for stop in request.stop if stop in text]
        if stops:
            text, finish = text[: min(stops)], "stop"
        if self.cut is not None and len(text.split()) > self.cut:
            text, finish = " ".join(text.split()[: self.cut]), "length"
        assert request.token_ids is not None
        return Completion(text, len(request.token_ids), len(text.split()), finish)  # type: ignore[arg-type]


class Template(WordTokenizer):
    """Messages, then what a template that opens reasoning ends with."""

    chat_template_digest = "t" * 64

    def decode(self, ids: Sequence[int]) -> str:
        return "<assistant>\n<think>\n"


@dataclass
class Asks(OneCall):
    """Right is the answer `yes`, with a stop string where the test says so."""

    stop: tuple[str, ...] = ()
    prefix: str = ""
    chat: bool = True

    def request(self, sample: Sample) -> Request:
        prompt: Any = ({"role": "user", "content": sample.prompt},) if self.chat else sample.prompt
        return Request("generate", prompt, self.prefix, max_new_tokens=4, stop=self.stop)

    def score(self, text: str) -> Score:
        return Score({self.metric: float(text == "yes")}, extracted=text)


def row(tmp_path: Any, backend: EchoBackend, task: OneCall | None = None, **changes: Any) -> Any:
    go(tmp_path / "run", backend, (task or Asks(),), limit=1, ctxs=(64,), **changes)
    (found,) = rows(tmp_path / "run")
    return found


def test_reasoning_is_kept_and_not_scored(tmp_path: Any) -> None:
    found = row(tmp_path, Says(text="<think>no, or</think>\n\nyes"))
    assert found.score == 1.0
    assert (found.outcomes[0]["text"], found.outcomes[0]["reasoning"]) == ("yes", "no, or")


@pytest.mark.parametrize(("template", "renders", "score"), [(True, True, 1.0), (False, True, 0.0), (False, False, 1.0)])
def test_a_closing_tag_alone_ends_what_a_template_opened_or_may_have(
    tmp_path: Any, template: bool, renders: bool, score: float
) -> None:
    tokenizer = Template() if template else WordTokenizer()
    assert row(tmp_path, Says(text="no</think>yes", renders_here=renders, tokenizer=tokenizer)).score == score


def test_off_scores_the_whole_text(tmp_path: Any) -> None:
    assert row(tmp_path, Says(text="<think>no</think>yes"), reasoning="off").score == 0.0


def test_a_tag_of_ones_own(tmp_path: Any) -> None:
    assert row(tmp_path, Says(text="<plan>no</plan>yes"), reasoning="plan").score == 1.0


ENDLESS = "<think>on and on and on and on"


def test_reasoning_that_a_short_budget_cut_is_a_failure(tmp_path: Any) -> None:
    found = row(tmp_path, Says(text=ENDLESS, cut=4))
    assert found.failure["kind"] == "reasoning_cut"
    assert "--max-new-tokens" in found.failure["message"]


@pytest.mark.parametrize(("edition", "raised"), [("official", None), ("builtin", 8)])
def test_with_an_official_or_a_raised_budget_it_is_wrong_and_counted_apart(
    tmp_path: Any, edition: str, raised: int | None
) -> None:
    found = row(tmp_path, Says(text=ENDLESS, cut=4), Asks(edition=edition), max_new_tokens=raised)
    assert (found.failure, found.score) == (None, 0.0)
    assert condition(found.outcomes) == {"texts", "reasoning_cut"}


def test_stop_strings_do_not_end_reasoning(tmp_path: Any) -> None:
    said = "<think>first\n\nthen\n\n</think>\n\nyes\n\nQuestion: more"
    backend = Says(text=said)
    found = row(tmp_path, backend, Asks(stop=("\n\n",)))
    assert (found.score, found.outcomes[0]["finish_reason"]) == (1.0, "stop")
    assert [request.stop for request in backend.asked] == [("\n\n",), ()]


def test_where_the_template_opens_reasoning_stop_strings_are_not_sent(tmp_path: Any) -> None:
    backend = Says(text="first\n\nthen</think>yes\n\nmore", tokenizer=Template())
    assert row(tmp_path, backend, Asks(stop=("\n\n",))).score == 1.0
    assert [request.stop for request in backend.asked] == [()]


def test_a_given_beginning_opens_no_reasoning(tmp_path: Any) -> None:
    found = row(tmp_path, Says(text="yes", tokenizer=Template()), Asks(prefix="so:"))
    assert found.score == 1.0


@dataclass
class Judged(Asks):
    needs_judge = True

    def step(self, sample: Sample, outcomes: Sequence[Completion]) -> Sequence[Request] | Score:
        if len(outcomes) == 2:
            return Score({self.metric: float(outcomes[1].text == "TRUE")})
        return [Request("judge", f"is it {outcomes[0].text}", max_new_tokens=8)] if outcomes else [self.request(sample)]


def judged(tmp_path: Any, said: str, judge: Says) -> Any:
    task = Judged()
    given = spec(tmp_path / "run", tasks=(task.id,), limit=1, ctxs=(64,), judge_model="judge")
    run(given, lambda name: Says(text=said), loader(task), open_judge=lambda name: judge)
    (found,) = rows(tmp_path / "run")
    return found


def test_a_judge_that_thinks_is_read_like_any_model(tmp_path: Any) -> None:
    judge = Says(text="is it FALSE? no</think>TRUE", renders_here=False)
    assert judged(tmp_path, "<think>hm</think>yes", judge).score == 1.0
    assert judge.asked[0].prompt == "is it yes"


def test_a_judge_whose_reasoning_was_cut_is_a_failure(tmp_path: Any) -> None:
    assert judged(tmp_path, "yes", Says(text=ENDLESS, cut=4)).failure["kind"] == "reasoning_cut"


@pytest.mark.parametrize("said", ["", " \n", "<think>hm</think>"])
def test_a_judge_is_never_asked_about_an_empty_answer(tmp_path: Any, said: str) -> None:
    judge = Says(text="TRUE")
    assert judged(tmp_path, said, judge).score == 0.0
    assert not judge.asked


def test_a_raised_budget_fits_into_ctx_and_is_said(tmp_path: Any) -> None:
    backend = Says(text="yes")
    found = row(tmp_path, backend, Asks(chat=False), max_new_tokens=32)
    (request,) = backend.asked
    assert request.max_new_tokens == found.max_new_tokens == 32
    assert found.ctx == 64
    assert found.prompt_tokens + 32 <= 64
    assert found.meta["max_new_tokens_of_task"] == 4


def test_a_budget_that_leaves_no_room_names_the_length_that_is_needed(tmp_path: Any) -> None:
    with pytest.raises(UsageError, match="--ctx 108"):
        row(tmp_path, Says(text="yes"), max_new_tokens=100)


def test_a_directory_belongs_to_one_budget_and_one_way_of_reading(tmp_path: Any) -> None:
    row(tmp_path, Says(text="yes"))
    for change in ({"max_new_tokens": 8}, {"reasoning": "off"}):
        with pytest.raises(UsageError, match=next(iter(change))):
            row(tmp_path, Says(text="yes"), **change)


@dataclass
class Chats(Says):
    """A server whose template opens reasoning without a word: every answer is `no</think>yes`, but for its stop strings."""

    renders_here: bool = False
    text: str = "no, \n\nno</think>yes"


def test_a_stop_string_in_reasoning_that_a_server_opened_is_found_out_with_one_question_more(tmp_path: Any) -> None:
    backend = Chats()
    go(tmp_path / "run", backend, (Asks(stop=("\n\n",)),), limit=4, ctxs=(64,))
    assert [row.score for row in rows(tmp_path / "run")] == [1.0] * 4
    assert [len(request.stop) for request in backend.asked] == [1, 1, 1, 1, 0, 0, 0, 0, 0]


def test_a_server_that_opens_none_is_asked_one_question_more_per_model(tmp_path: Any) -> None:
    backend = Chats(text="yes\n\nand more")
    go(tmp_path / "run", backend, (Asks(stop=("\n\n",)),), limit=4, ctxs=(64,))
    assert [row.score for row in rows(tmp_path / "run")] == [1.0] * 4
    assert len(backend.asked) == 5


@dataclass
class Short(Chats):
    """Its budgets cut every answer but that to the short question. answers: right, though nothing but reasoning has come."""

    cut: int | None = 1
    text: str = "yes or no?</think>yes"
    short: Completion = field(default_factory=lambda: Completion("hm</think>OK", 9, 3, "eos"))

    def answer(self, request: Request) -> Completion:
        told = super().answer(request)
        return self.short if "word OK" in str(request.prompt) else told


def ends(tmp_path: Any) -> list[Any]:
    return [row.failure["kind"] if row.failure else row.score for row in rows(tmp_path / "run")]


def test_where_the_budget_cut_every_answer_a_short_question_shows_that_they_were_reasoning(tmp_path: Any) -> None:
    backend = Short()
    go(tmp_path / "run", backend, (Asks(),), limit=4, ctxs=(64,))
    assert ends(tmp_path) == ["reasoning_cut"] * 4
    (short,) = [request for request in backend.asked if "word OK" in str(request.prompt)]
    assert (short.stop, short.max_new_tokens) == ((), 2048)


@pytest.mark.parametrize(
    "short",
    [
        Completion("OK", 9, 1, "eos"),
        Completion("<think>hm</think>OK", 9, 4, "eos"),
        Completion("<think>hm", 9, 2, "length"),
    ],
)
def test_where_it_shows_that_the_template_opens_none_a_cut_answer_is_an_answer(
    tmp_path: Any, short: Completion
) -> None:
    go(tmp_path / "run", Short(short=short), (Asks(),), limit=2, ctxs=(64,))
    assert ends(tmp_path) == [1.0] * 2
    assert not rows(tmp_path / "run")[0].outcomes[0].get("notes")


def test_a_server_that_tells_whole_reasoning_apart_leaves_what_was_cut_in_the_text(tmp_path: Any) -> None:
    """As vLLM's parser for Qwen 3 did: of an answer that no closing tag is in, all is content."""
    go(tmp_path / "run", Short(short=Completion("OK", 9, 4, "eos", reasoning="hm")), (Asks(),), limit=2, ctxs=(64,))
    assert ends(tmp_path) == ["reasoning_cut"] * 2


def test_where_it_shows_nothing_a_cut_answer_is_scored_and_says_so(tmp_path: Any) -> None:
    backend = Short(short=Completion("hm and hm and", 9, 2048, "length"))
    go(tmp_path / "run", backend, (Asks(),), limit=8, ctxs=(64,))
    assert ends(tmp_path) == [1.0] * 8
    assert all("reasoning" in row.outcomes[0]["notes"][0] for row in rows(tmp_path / "run"))
    assert len(backend.asked) == 9


def test_reasoning_that_begins_in_a_chat_endpoints_text_and_was_cut_is_no_answer(tmp_path: Any) -> None:
    go(tmp_path / "run", Chats(text=ENDLESS, cut=4), (Asks(),), limit=2, ctxs=(64,))
    assert ends(tmp_path) == ["reasoning_cut"] * 2


@dataclass
class Apart(Chats):
    """A server that tells reasoning apart; the budget ends before the answer."""

    def answer(self, request: Request) -> Completion:
        self.asked.append(request)
        return Completion("", 9, request.max_new_tokens, "length", reasoning="yes or no?")


def test_reasoning_apart_and_no_text_is_no_answer(tmp_path: Any) -> None:
    backend = Apart()
    go(tmp_path / "run", backend, (Asks(),), limit=2, ctxs=(64,))
    assert ends(tmp_path) == ["reasoning_cut"] * 2
    assert len(backend.asked) == 2


def test_a_closing_tag_outweighs_an_answer_that_ended_without_one(tmp_path: Any) -> None:
    """Small models end now and then inside their reasoning."""

    @dataclass
    class InTurn(Chats):
        def answer(self, request: Request) -> Completion:
            n = len(self.asked)
            self.text, self.cut = [("no, no", None), ("no</think>yes", None), ("yes or no?", 1)][min(n, 2)]
            return super().answer(request)

    go(tmp_path / "run", InTurn(), (Asks(),), limit=4, ctxs=(64,))
    assert sorted(map(str, ends(tmp_path))) == ["0.0", "1.0", "reasoning_cut", "reasoning_cut"]


@dataclass
class Sometimes(Chats):
    """Every other answer is cut by its budget before it closes its reasoning."""

    def answer(self, request: Request) -> Completion:
        self.cut = None if len(self.asked) % 2 else 1
        return super().answer(request)


def test_what_the_budget_cut_in_reasoning_that_a_server_opened_is_no_answer(tmp_path: Any) -> None:
    go(tmp_path / "run", Sometimes(), (Asks(),), limit=4, ctxs=(64,))
    assert sorted(map(str, ends(tmp_path))) == ["1.0", "1.0", "reasoning_cut", "reasoning_cut"]


def test_off_waits_for_nothing_and_asks_nothing_again(tmp_path: Any) -> None:
    backend = Chats()
    go(tmp_path / "run", backend, (Asks(stop=("\n\n",)),), limit=4, ctxs=(64,), reasoning="off")
    assert [row.outcomes[0]["text"] for row in rows(tmp_path / "run")] == ["no, "] * 4
    assert len(backend.asked) == 4
