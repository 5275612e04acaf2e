"""The task repoqa/snf in both editions."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import pytest

from kleval.tasks.registry import expand, load_task
from kleval.tasks.repoqa.task import FIXED_SIZE, IGNORE_COMMENTS, RepoQaTask
from kleval.types import Completion, ContextTooSmall, Sample, Tokenizer, Unfit, UsageError


@pytest.fixture(scope="module")
def builtin() -> RepoQaTask:
    return RepoQaTask("builtin", None, None)


def answer(text: str) -> Completion:
    return Completion(text, 0, 0)


def made(task: RepoQaTask, tokenizer: Tokenizer, ctx: int, n: int, seed: int = 0) -> list[Sample]:
    return [sample for sample in task.samples(tokenizer, ctx, n, seed) if isinstance(sample, Sample)]


@pytest.mark.parametrize("ctx", [1024, 8192, 65536])
def test_an_oracle_gets_full_marks_and_others_none(builtin: RepoQaTask, words: Tokenizer, ctx: int) -> None:
    samples = made(builtin, words, ctx, 4)
    for sample, other in pairwise([*samples, samples[0]]):
        right = builtin.score(sample, answer(f"```python\n{sample.references[0]}\n```")).metrics
        assert set(right.values()) == {1.0}
        assert set(builtin.score(sample, answer("")).metrics.values()) == {0.0}
        assert builtin.score(sample, answer(other.references[0])).metrics["pass@0.5"] == 0.0


@pytest.mark.parametrize("ctx", [1024, 4096, 65536])
def test_ctx_holds_prompt_and_answer_and_is_used(builtin: RepoQaTask, tiny_bpe: Tokenizer, ctx: int) -> None:
    for sample in made(builtin, tiny_bpe, ctx, 3):
        assert sample.prompt_tokens == tiny_bpe.count(tiny_bpe.render(sample.prompt))
        assert ctx * 0.9 < sample.prompt_tokens + sample.max_new_tokens <= ctx
        assert sample.max_new_tokens >= tiny_bpe.count(sample.references[0]) * 1.5 + 16


def test_the_function_stands_in_the_prompt_once_and_its_description_too(builtin: RepoQaTask, words: Tokenizer) -> None:
    for sample in made(builtin, words, 16384, 4):
        text = words.render(sample.prompt)
        assert text.count(sample.references[0]) == 1
        assert text.count("\nFunction Description:") == 1


def test_a_sample_does_not_depend_on_those_before_it(words: Tokenizer, builtin: RepoQaTask) -> None:
    again = RepoQaTask("builtin", None, None)
    made(again, words, 1024, 2, seed=5)
    for ctx in (2048, 4096):
        assert made(again, words, ctx, 4) == made(builtin, words, ctx, 4)
    assert made(builtin, words, 2048, 2) == made(builtin, words, 2048, 4)[:2]


def test_seeds_and_samples_differ(builtin: RepoQaTask, words: Tokenizer) -> None:
    samples = [*made(builtin, words, 2048, 5), *made(builtin, words, 2048, 5, seed=1)]
    assert len({s.prompt_hash for s in samples}) == len({s.id for s in samples}) == 10


def test_rivals_are_nine_others_and_near_where_there_is_room(builtin: RepoQaTask, words: Tokenizer) -> None:
    for sample in made(builtin, words, 65536, 2):
        names = sample.meta["candidates"]
        assert len(set(names)) == 10
        assert sample.meta["name"] in names
        text = words.render(sample.prompt)
        assert all(code in text for _, code in builtin._made.candidates(dict(sample.meta)))


def test_too_small_a_context_names_one_that_is_enough(builtin: RepoQaTask, tiny_bpe: Tokenizer) -> None:
    with pytest.raises(ContextTooSmall) as error:
        made(builtin, tiny_bpe, 128, 1)
    assert error.value.minimum_tokens > 128
    assert made(builtin, tiny_bpe, 2048, 1)


def test_the_official_edition_asks_every_needle_in_order(data_dir: Path, words: Tokenizer) -> None:
    task = RepoQaTask("official", None, data_dir)
    samples = made(task, words, 4096, 10)
    assert [s.meta["name"] for s in samples] == ["first", "second", "third"]
    assert [s.meta["position_wanted"] for s in samples] == [0.1667, 0.5, 0.8333]
    assert {s.max_new_tokens for s in samples} == {1024}
    assert all(s.meta["repository_exhausted"] for s in samples)
    for sample in samples:
        assert set(task.score(sample, answer(f"```\n{sample.references[0]}\n```")).metrics.values()) == {1.0}
        assert "pass@0.8 python" in task.score(sample, answer("")).metrics


def test_the_offset_defect_is_mended_and_flagged(data_dir: Path, words: Tokenizer) -> None:
    for sample in made(RepoQaTask("official", None, data_dir), words, 4096, 3):
        assert sample.meta["official_offset_defect"]
        assert sample.references[0].strip() in words.render(sample.prompt)


def test_what_does_not_fit_is_passed_over_with_its_minimum(data_dir: Path, words: Tokenizer) -> None:
    found = list(RepoQaTask("official", None, data_dir).samples(words, 1100, 3, 0))
    assert all(isinstance(one, Unfit) for one in found)
    minimum = max(one.minimum_tokens for one in found if isinstance(one, Unfit))
    assert len(made(RepoQaTask("official", None, data_dir), words, minimum, 3)) == 3


def test_the_fixed_size_is_the_official_default(data_dir: Path, words: Tokenizer) -> None:
    samples = made(RepoQaTask("official", FIXED_SIZE, data_dir), words, 32768, 3)
    assert {s.meta["code_context_size"] for s in samples} == {16384}
    with pytest.raises(UsageError, match="no protocol"):
        RepoQaTask("builtin", FIXED_SIZE, None)


def test_ignored_comments_do_not_count(data_dir: Path, words: Tokenizer) -> None:
    uncommented = "```python\ndef first(x):\n    return x * 2\n```"
    strict, lenient = (RepoQaTask("official", protocol, data_dir) for protocol in (None, IGNORE_COMMENTS))
    sample = made(strict, words, 4096, 1)[0]
    assert strict.score(sample, answer(uncommented)).metrics["pass@1.0"] == 0.0
    assert lenient.score(sample, answer(uncommented)).metrics["pass@1.0"] == 1.0


@pytest.mark.parametrize("edition", ["builtin", "official"])
def test_the_card_says_what_it_must(edition: str, data_dir: Path) -> None:
    card = load_task("repoqa/snf", edition, None, data_dir).card()  # type: ignore[attr-defined]
    assert {
        "source",
        "revision",
        "prompt_sha256",
        "metric",
        "limits",
        "deviations",
        "defects",
        "unknown",
    } <= card.keys()
    json.dumps(card)


def test_the_family_is_registered() -> None:
    assert expand(["repoqa"]) == ["repoqa/snf"]
