"""The task frames/oracle in both editions, with and without a judge."""

from __future__ import annotations

import json
import re
import statistics
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from kleval.harness import RunSpec, run
from kleval.store import RunStore
from kleval.tasks.articles import ARTICLES_VERSION, corpus
from kleval.tasks.draws import own_draws
from kleval.tasks.frames.official import answer_sentence
from kleval.tasks.frames.task import EXACT_MATCH, JUDGE, KINDS, FramesTask, ask
from kleval.tasks.registry import expand, load_task
from kleval.tokenization import load_tokenizer
from kleval.types import (
    Completion,
    ContextTooSmall,
    Failure,
    Outcome,
    Request,
    Sample,
    Score,
    Tokenizer,
    Unfit,
    UsageError,
)


def task(edition: str = "builtin", protocol: str | None = None, data_dir: Path | None = None) -> FramesTask:
    loaded = load_task("frames/oracle", edition, protocol, data_dir)
    assert isinstance(loaded, FramesTask)
    return loaded


def made(one: FramesTask, tokenizer: Tokenizer, ctx: int, n: int, seed: int = 42) -> list[Sample]:
    return [sample for sample in one.samples(tokenizer, ctx, n, seed) if isinstance(sample, Sample)]


def score(one: FramesTask, sample: Sample, *texts: str) -> dict[str, float]:
    ended = one.step(sample, [Completion(text, 0, 0) for text in texts])
    assert isinstance(ended, Score)
    return dict(ended.metrics)


def text_of(sample: Sample) -> str:
    return sample.prompt if isinstance(sample.prompt, str) else sample.prompt[0]["content"]


def test_the_family_has_one_task() -> None:
    assert expand(["frames"]) == ["frames/oracle"]


@pytest.mark.parametrize("ctx", [1024, 8192, 65536])
def test_an_oracle_gets_full_marks_and_an_empty_answer_none(ctx: int, words: Tokenizer) -> None:
    one = task()
    for sample in made(one, words, ctx, 6):
        for reference in sample.references:
            assert score(one, sample, answer_sentence(reference)) == {"exact_match": 1, "contains": 1}
        assert score(one, sample, "") == {"exact_match": 0, "contains": 0}


def test_answers_of_other_samples_score_near_zero(words: Tokenizer) -> None:
    one = task()
    samples = made(one, words, 2048, 40)
    moved = [score(one, s, answer_sentence(samples[i - 1].references[0]))["exact_match"] for i, s in enumerate(samples)]
    assert statistics.mean(moved) <= 0.1


@pytest.mark.parametrize("kind", ["words", "tiny_bpe"])
@pytest.mark.parametrize("ctx", [1024, 2048, 16384])
def test_ctx_is_nearly_filled_and_never_exceeded(kind: str, ctx: int, request: pytest.FixtureRequest) -> None:
    tokenizer: Tokenizer = request.getfixturevalue(kind)
    longest = max(tokenizer.count(f"{a.title}\n{a.text}") for a in corpus(64, "frames/42"))
    for sample in made(task(), tokenizer, ctx, 5):
        assert sample.prompt_tokens == tokenizer.count(tokenizer.render(sample.prompt))
        assert ctx - 1.5 * longest <= sample.prompt_tokens + sample.max_new_tokens <= ctx


@pytest.mark.parametrize("ctx", [1024, 8192])
def test_the_articles_that_answer_stand_once_in_the_context(ctx: int, words: Tokenizer) -> None:
    for sample in made(task(), words, ctx, 10):
        lines = text_of(sample).split("\n")
        for title in sample.meta["gold"]:
            assert lines.count(title) == 1
        assert sample.meta["question"] in lines
        assert len(sample.meta["gold"]) == KINDS[sample.meta["kind"]]
        assert text_of(sample).count("\n") == 2 * sample.meta["documents"] + 7


def test_every_kind_is_asked_where_there_is_room(words: Tokenizer) -> None:
    assert {sample.meta["kind"] for sample in made(task(), words, 4096, 10)} == set(KINDS)


THROUGH = [
    ("the mayor of ", "The mayor of {} is "),
    ("the birthplace of ", "{} was born in "),
    ("the person who started the company ", "The company {} was started by "),
    ("the place where the ship ", "The ship {} was built in "),
]
EVENTS = [
    (r"the founding of (.+)", "{} was founded in "),
    (r"the year in which (.+) moved abroad", ", {} moved abroad."),
    (r"the opening of the company (.+)", "The company {} opened its doors in "),
    (r"the sinking of the ship (.+)", "The ship {} sank in "),
]


def resolve(phrase: str, text: str) -> str:
    """The name that a phrase stands for, by the articles alone."""
    for words, statement in THROUGH:
        if phrase.startswith(words):
            inner = phrase.removeprefix(words)
            inner = inner.removesuffix(" was built") if words.endswith("ship ") else inner
            return after(statement.format(resolve(inner, text)), text)
    return phrase


def after(statement: str, text: str) -> str:
    (found,) = set(re.findall(re.escape(statement) + r"([^.]+)\.", text))
    return found


def year(phrase: str, text: str) -> int:
    for pattern, statement in EVENTS:
        if m := re.fullmatch(pattern, phrase):
            name = resolve(m[1], text)
            if statement.startswith(","):
                (found,) = re.findall(r"In (\d+)" + re.escape(statement.format(name)), text)
                return int(found)
            return int(after(statement.format(name), text))
    raise AssertionError(phrase)


def answer(question: str, text: str) -> str:
    """The answer to a question of the kinds `difference` and `first`, by the articles alone."""
    if m := re.fullmatch(r"How many years lie between (.+?) and (the (?:founding|year|opening|sinking).+)\?", question):
        return str(abs(year(m[1], text) - year(m[2], text)))
    m = re.fullmatch(r"Which town was founded first, (.+?) or (the .+)\?", question)
    assert m
    names = [resolve(m[1], text), resolve(m[2], text)]
    return min(names, key=lambda name: int(after(f"{name} was founded in ", text)))


def test_years_and_comparisons_follow_from_the_articles(words: Tokenizer) -> None:
    samples = made(task(), words, 4096, 40)
    counted = [s for s in samples if s.meta["kind"] in ("difference", "first")]
    assert len(counted) == 16
    for sample in counted:
        assert answer(sample.meta["question"], text_of(sample)) == sample.references[0]


@pytest.mark.parametrize("kind", ["chain-2", "chain-3", "chain-4"])
def test_chains_lead_from_article_to_article(kind: str) -> None:
    articles = corpus(64, "chains")
    for i in range(20):
        asked = ask(own_draws("chains", kind, i).rng, articles, kind)
        gold = [articles[at] for at in asked.gold]
        assert len(gold) == int(kind[-1])
        assert gold[0].title in asked.question
        for one, following in pairwise(gold):
            assert following.title in one.facts[0].statement
            assert following.title not in asked.question
        assert any(asked.answers == fact.answers for fact in gold[-1].facts[1:])


def test_a_sample_depends_on_nothing_but_what_it_is(words: Tokenizer) -> None:
    many = made(task(), words, 2048, 6)
    assert made(task(), words, 2048, 2) == many[:2]
    assert made(task(), words, 2048, 1, seed=1)[0].prompt != many[0].prompt
    assert len({sample.id for sample in many}) == len({sample.meta["question"] for sample in many}) == 6


def test_a_context_that_is_too_short_names_one_that_is_not(tiny_bpe: Tokenizer) -> None:
    with pytest.raises(ContextTooSmall) as raised:
        made(task(), tiny_bpe, 300, 1)
    assert raised.value.minimum_tokens > 300
    assert made(task(), tiny_bpe, 1024, 1)


def test_a_judge_is_asked_after_the_answer_and_decides(words: Tokenizer) -> None:
    one = task(protocol=JUDGE)
    (sample,) = made(one, words, 1024, 1)
    assert one.needs_judge
    (first,) = one.step(sample, ())  # type: ignore[misc]
    assert (first.kind, first.prompt, first.max_new_tokens) == ("generate", sample.prompt, sample.max_new_tokens)
    (second,) = one.step(sample, [Completion("Norvale it is", 0, 0)])  # type: ignore[misc]
    assert second.kind == "judge"
    asked = second.prompt[0]["content"]
    assert f"- Question: {sample.meta['question']}\n- Predicted Answer: Norvale it is\n" in asked
    assert f"- Ground Truth Answer: {sample.references[0]}\n" in asked
    assert score(one, sample, "Norvale", "Decision: TRUE") == {"accuracy": 1, "exact_match": 0, "contains": 0}
    assert score(one, sample, answer_sentence(sample.references[0]), "Decision: FALSE")["accuracy"] == 0


def test_a_reply_without_a_decision_is_a_failure_and_an_empty_answer_is_wrong(words: Tokenizer) -> None:
    one = task(protocol=JUDGE)
    (sample,) = made(one, words, 1024, 1)
    replies = [Completion(text, 1, 1) for text in ("Norvale", "I do not know.")]
    assert one.step(sample, replies) == Failure("judge", "the judge's reply holds no decision: 'I do not know.'")
    assert score(one, sample, " \n")["accuracy"] == 0


def test_which_protocol_an_edition_begins_with(tmp_path: Path, inline_rows: list[dict[str, Any]]) -> None:
    write(tmp_path, inline_rows)
    assert task().protocol == EXACT_MATCH
    official = task("official", data_dir=tmp_path)
    assert (official.protocol, official.metric) == (JUDGE, "accuracy")
    assert task("official", EXACT_MATCH, tmp_path).metric == "exact_match"


def write(folder: Path, rows: list[dict[str, Any]]) -> None:
    (folder / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def test_official_rows_are_whole_or_not_at_all(
    tmp_path: Path, inline_rows: list[dict[str, Any]], words: Tokenizer
) -> None:
    write(tmp_path, inline_rows)
    found = list(task("official", data_dir=tmp_path).samples(words, 1200, 10, 0))
    samples = [one for one in found if isinstance(one, Sample)]
    unfit = [one for one in found if isinstance(one, Unfit)]
    assert [one.index for one in samples] == [0, 1]
    assert [one.index for one in unfit] == [2, 3]
    assert samples[0].prompt_tokens == words.count(words.render(samples[0].prompt))
    assert samples[0].max_new_tokens == 1024
    assert "<text>\nHeronby 0\nHeronby is a town." in text_of(samples[0])
    for one in unfit:
        again = made(task("official", data_dir=tmp_path), words, one.minimum_tokens + 8, 10)
        assert one.index in [sample.index for sample in again]


def test_an_oracle_gets_full_marks_on_official_rows(
    tmp_path: Path, inline_rows: list[dict[str, Any]], words: Tokenizer
) -> None:
    write(tmp_path, inline_rows)
    one = task("official", EXACT_MATCH, tmp_path)
    for sample in made(one, words, 4096, 4):
        assert score(one, sample, answer_sentence(sample.references[0]))["exact_match"] == 1


@pytest.mark.parametrize("protocol", [EXACT_MATCH, JUDGE])
def test_the_card_says_what_it_must(protocol: str) -> None:
    card = task(protocol=protocol).card()
    for name in ("source", "revision", "prompt_sha256", "metric", "limits", "deviations", "defects", "description"):
        assert card[name]
    assert ARTICLES_VERSION in card["revision"]


def test_unknown_protocols_are_refused() -> None:
    with pytest.raises(UsageError, match="no protocol"):
        task(protocol="bleu")


@dataclass
class Fixed:
    """A backend that answers each request with what it is told to."""

    replies: Sequence[str | Failure]
    name: str = "fixed"
    model: str = "fixed@one"
    max_ctx: int | None = None
    tokenizer: Tokenizer = field(default_factory=lambda: load_tokenizer("words"))
    asked: list[Request] = field(default_factory=list)

    def describe(self) -> dict[str, Any]:
        return {}

    def run(self, requests: Sequence[Request]) -> Iterator[tuple[int, Outcome]]:
        for position, request in enumerate(requests):
            reply = self.replies[len(self.asked) % len(self.replies)]
            self.asked.append(request)
            yield position, reply if isinstance(reply, Failure) else Completion(reply, 1, 1)

    def close(self) -> None: ...


def test_in_a_run_a_judges_failures_are_failures_and_never_wrong_answers(tmp_path: Path) -> None:
    replies = ("Decision: TRUE", "Decision: FALSE", "hm", Failure("server", "down"))
    backends = {"model": Fixed(["an answer"]), "judge": Fixed(replies)}
    spec = RunSpec(
        models=("model",), tasks=("frames/oracle",), ctxs=(1024,), out=tmp_path / "run", limit=4, judge_model="judge"
    )
    run(spec, backends.__getitem__, lambda name: task(protocol=JUDGE))
    rows = list(RunStore.open(tmp_path / "run").rows())
    assert {request.kind for request in backends["judge"].asked} == {"judge"}
    assert Counter(row.score for row in rows) == {1.0: 1, 0.0: 1, None: 2}
    assert [row.failure["kind"] for row in rows if row.failure is not None] == ["server", "judge"]
    assert all(row.score is None for row in rows if row.failure is not None)


def test_a_run_without_the_judge_that_it_needs_is_refused_at_once(tmp_path: Path) -> None:
    spec = RunSpec(models=("model",), tasks=("frames/oracle",), ctxs=(1024,), out=tmp_path / "run")
    with pytest.raises(UsageError, match="--judge-model"):
        run(spec, {"model": Fixed(["x"])}.__getitem__, lambda name: task(protocol=JUDGE))
