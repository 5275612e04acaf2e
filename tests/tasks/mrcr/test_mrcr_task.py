"""The tasks mrcr/2needle, mrcr/4needle and mrcr/8needle in both editions."""

from __future__ import annotations

import json
import re
import statistics
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import kleval
from kleval.tasks.mrcr import official as bins
from kleval.tasks.mrcr.task import GOOGLE, PROTOCOL, MrcrTask
from kleval.tasks.registry import expand, load_task
from kleval.tokenization import read_tokenizer
from kleval.types import Completion, ContextTooSmall, Request, Sample, Tokenizer, Unfit, UsageError

Write = Callable[..., list[Path]]
NEEDLES = (2, 4, 8)


def task(n: int = 2, edition: str = "builtin", protocol: str | None = None, data_dir: Path | None = None) -> MrcrTask:
    loaded = load_task(f"mrcr/{n}needle", edition, protocol, data_dir)
    assert isinstance(loaded, MrcrTask)
    return loaded


def made(one: MrcrTask, tokenizer: Tokenizer, ctx: int, n: int, seed: int = 0) -> list[Sample]:
    return [sample for sample in one.samples(tokenizer, ctx, n, seed) if isinstance(sample, Sample)]


def match(one: MrcrTask, sample: Sample, text: str) -> float:
    return one.score(sample, Completion(text, 0, 0)).metrics["match"]


def equal_turns(sample: Sample) -> list[tuple[int, str]]:
    """(index of the answer, answer) of every turn whose request is the one asked about."""
    messages = sample.prompt
    assert not isinstance(messages, str)
    last = re.search(r"the \d\w\w \(1 indexed\) (.+) about (.+)\. Do not", messages[-1]["content"])
    assert last
    asked = re.compile(rf"(?:.*\n)*write an? {last[1]} about {last[2]}")
    return [
        (i + 1, messages[i + 1]["content"])
        for i in range(0, len(messages) - 1, 2)
        if asked.fullmatch(messages[i]["content"])
    ]


@pytest.mark.parametrize("protocol", [PROTOCOL, GOOGLE])
@pytest.mark.parametrize("ctx", [1024, 16384])
@pytest.mark.parametrize("n", NEEDLES)
def test_an_oracle_that_reads_the_conversation_gets_full_marks(
    n: int, ctx: int, protocol: str, words: Tokenizer
) -> None:
    one = task(n, protocol=protocol)
    for sample in made(one, words, ctx, 5):
        assert not isinstance(sample.prompt, str)
        order = re.search(r"Prepend (\w{10}) to the (\d)", sample.prompt[-1]["content"])
        assert order
        turns = equal_turns(sample)
        assert len(turns) == len({text for _, text in turns}) == n
        at, text = turns[int(order[2]) - 1]
        assert at == sample.meta["desired_msg_index"]
        assert match(one, sample, order[1] + text) == 1


@pytest.mark.parametrize("n", NEEDLES)
def test_empty_shuffled_and_other_answers_score_near_zero(n: int, words: Tokenizer) -> None:
    one = task(n)
    samples = made(one, words, 8192, 8)
    assert {match(one, sample, "") for sample in samples} == {0.0}
    assert {match(one, a, b.references[0]) for a, b in pairwise(samples)} == {0.0}
    other = [
        match(one, s, s.meta["prefix"] + next(t for i, t in equal_turns(s) if i != s.meta["desired_msg_index"]))
        for s in samples
    ]
    assert statistics.mean(other) < 0.35


@pytest.mark.parametrize("n", NEEDLES)
def test_the_shipped_tokenizer_runs_from_1k(n: int) -> None:
    nano = read_tokenizer(Path(kleval.__file__).parent / "models/nano", "nano")
    samples = made(task(n), nano, 1024, 40)
    assert len(samples) == 40
    assert min(sample.meta["total_messages"] for sample in samples) > 2 * n + 1


@pytest.mark.parametrize("ctx", [1536, 4096, 65536])
@pytest.mark.parametrize("n", NEEDLES)
def test_ctx_holds_prompt_and_answer_and_is_used(n: int, ctx: int, tiny_bpe: Tokenizer) -> None:
    for sample in made(task(n), tiny_bpe, ctx, 3):
        assert sample.prompt_tokens == tiny_bpe.count(tiny_bpe.render(sample.prompt))
        assert ctx * 0.75 < sample.prompt_tokens + sample.max_new_tokens <= ctx
        assert sample.max_new_tokens >= tiny_bpe.count(sample.references[0]) * 1.5 + 16


def test_messages_alternate_and_are_sent_as_messages(words: Tokenizer) -> None:
    one = task(4)
    sample = made(one, words, 4096, 1)[0]
    (request,) = one.step(sample, ())  # type: ignore[misc]
    assert isinstance(request, Request)
    assert request.prompt == sample.prompt
    assert not isinstance(sample.prompt, str)
    roles = [message["role"] for message in sample.prompt]
    assert roles == ["user", "assistant"] * (len(roles) // 2) + ["user"]
    assert sample.meta["total_messages"] == len(roles)
    assert "======EXAMPLE======" in sample.prompt[0]["content"]


def test_a_sample_does_not_depend_on_those_before_it(words: Tokenizer) -> None:
    busy = task(4)
    made(busy, words, 1024, 2, seed=9)
    assert made(busy, words, 4096, 3) == made(task(4), words, 4096, 5)[:3]


def test_seeds_samples_and_protocols_have_ids_of_their_own(words: Tokenizer) -> None:
    samples = [*made(task(), words, 2048, 5), *made(task(), words, 2048, 5, seed=1)]
    assert len({s.prompt_hash for s in samples}) == len({s.id for s in samples}) == 10
    google = made(task(protocol=GOOGLE), words, 2048, 5)
    assert [s.prompt_hash for s in google] == [s.prompt_hash for s in samples[:5]]
    assert not {s.id for s in google} & {s.id for s in samples}


def test_a_known_sample_stays_what_it_is(words: Tokenizer) -> None:
    sample = made(task(2), words, 1024, 1)[0]
    assert sample.prompt_hash == "64ebddee6184ca7877d4c24b9c850fe7d484ade7edeb295eeb821825f93b33f7"


def test_too_small_a_context_names_one_that_is_enough(words: Tokenizer) -> None:
    with pytest.raises(ContextTooSmall) as error:
        made(task(8), words, 128, 1)
    assert error.value.minimum_tokens > 128
    assert made(task(8), words, 2 * error.value.minimum_tokens, 1)


def test_the_protocols_differ_where_text_stands_before_the_prefix(words: Tokenizer) -> None:
    openai, google = task(), task(protocol=GOOGLE)
    sample = made(openai, words, 2048, 1)[0]
    said = "Here it is: " + sample.references[0]
    assert (match(openai, sample, said), match(google, sample, said)) == (0, 1)


@pytest.mark.parametrize("old", [False, True])
def test_the_official_edition_asks_in_order_and_bins_by_its_own_tokens(
    old: bool,
    mrcr_rows: list[dict[str, Any]],
    write_mrcr: Write,
    tmp_path: Path,
    words: Tokenizer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bins, "counter", lambda: None)
    write_mrcr(mrcr_rows, old=old)
    one = task(2, "official", None, tmp_path)
    samples = made(one, words, 4096, 10)
    assert [s.references[0] for s in samples] == [row["answer"] for row in mrcr_rows]
    assert [list(s.prompt) for s in samples] == [json.loads(row["prompt"]) for row in mrcr_rows]
    assert {(s.max_new_tokens, s.meta["bin"], s.meta["bin_tokenizer"]) for s in samples} == {(2000, "outside", "words")}
    assert ("before" if old else "since") in one.data_revision
    assert match(one, samples[1], samples[1].references[0]) == 1


def test_bins_count_in_o200k_where_it_is_at_hand(
    write_mrcr: Write,
    mrcr_rows: list[dict[str, Any]],
    tmp_path: Path,
    words: Tokenizer,
    tiny_bpe: Tokenizer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bins, "counter", lambda: tiny_bpe)
    messages = json.loads(mrcr_rows[3]["prompt"])
    messages[5]["content"] = "word " * 900
    mrcr_rows[3]["prompt"] = json.dumps(messages)
    write_mrcr(mrcr_rows)
    one = task(2, "official", None, tmp_path)
    sample = made(one, words, 8192, 4)[3]
    texts = [*(message["content"] for message in messages), mrcr_rows[3]["answer"]]
    assert sample.meta["bin_tokens"] == sum(map(tiny_bpe.count, texts))
    assert sample.meta["bin_tokenizer"] == "tiny-bpe"
    score = one.score(sample, Completion(sample.references[0], 0, 0))
    assert score.metrics[f"match {bins.bin_of(sample.meta['bin_tokens'])}"] == 1


def test_an_official_answer_longer_than_the_budget_gets_room(
    write_mrcr: Write, mrcr_rows: list[dict[str, Any]], tmp_path: Path, words: Tokenizer
) -> None:
    mrcr_rows[0]["answer"] += " word" * 2500
    write_mrcr(mrcr_rows)
    sample = made(task(2, "official", None, tmp_path), words, 8192, 1)[0]
    assert sample.max_new_tokens >= words.count(mrcr_rows[0]["answer"])


def test_a_conversation_that_does_not_fit_is_passed_over(
    write_mrcr: Write, mrcr_rows: list[dict[str, Any]], tmp_path: Path, words: Tokenizer
) -> None:
    messages = json.loads(mrcr_rows[1]["prompt"])
    messages[1]["content"] = "word " * 40_000
    mrcr_rows[1]["prompt"] = json.dumps(messages)
    write_mrcr(mrcr_rows)
    first, second, third = task(2, "official", None, tmp_path).samples(words, 4096, 2, 0)
    assert isinstance(first, Sample)
    assert isinstance(third, Sample)
    assert isinstance(second, Unfit)
    assert 40_000 < second.minimum_tokens < 50_000
    assert second.index == 1


def test_missing_official_data_name_the_command(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="kleval data fetch mrcr"):
        task(8, "official", None, tmp_path)


@pytest.mark.parametrize("protocol", [PROTOCOL, GOOGLE])
def test_the_card_says_what_it_must(protocol: str) -> None:
    card = task(protocol=protocol).card()
    assert {"source", "revision", "prompt_sha256", "metric", "limits", "deviations", "defects", "unknown"} <= set(card)
    json.dumps(card)


def test_the_family_is_registered_and_its_protocols_are_known() -> None:
    assert expand(["mrcr"]) == [f"mrcr/{n}needle" for n in NEEDLES]
    with pytest.raises(UsageError, match="no protocol"):
        task(protocol="google")
