"""Rows of the official edition against rows written by the official generator."""

from __future__ import annotations

import hashlib
import json
import random
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kleval.tasks.generate import rows
from kleval.tasks.registry import load_task
from kleval.tasks.ruler.haystack import read_essays
from kleval.tasks.ruler.spec import SPECS
from kleval.tokenization import load_tokenizer
from kleval.types import ContextTooSmall, Task, Tokenizer, UsageError

COMPARED = ("input", "outputs", "length", "answer_prefix")

# sha256 over the official generator's rows, tokenizer `words`, ctx 1024, seed 42, first five.
ROWS_SHA256 = {
    "niah_single_1": "ac00d086b7531ac23875c981fbed473fb953085a62a0970a88f9fd018497895e",
    "niah_multikey_2": "b1f434981e5afe2b2a280790d453a679e02b7ea48eea03b018e55043380797b7",
    "niah_multikey_3": "7fd3990154b0517868da7db55194f210200bf75ea55223107865c4ba04255105",
    "vt": "5e00c9a3e126f7635005b61fc72985bfd92d1bdc125f6d7244dc19b8b3fdd3a3",
    "cwe": "9096b8123fe4ddba34a3d5b16765ce1f5e25c0183e2e1727da3169e2adcf661f",
    "fwe": "c57224670a51135a674bbb4f5ef3c718c4430766275c015ca9715da40874b876",
}


def official(name: str, data_dir: Path | None = None) -> Task:
    return load_task(f"ruler/{name}", edition="official", data_dir=data_dir)


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize(
    ("folder", "tokenizer", "ctx"),
    [("words", "words", 1024), ("words", "words", 4096), ("cl100k", "tiktoken:cl100k_base", 4096)],
)
def test_rows_equal_the_official_rows(
    fixtures_dir: Path, monkeypatch: pytest.MonkeyPatch, name: str, folder: str, tokenizer: str, ctx: int
) -> None:
    file = fixtures_dir / "ruler" / folder / str(ctx) / f"{name}.jsonl"
    if not file.is_file():
        pytest.skip(f"the official generator wrote no {folder}/{ctx}/{name}.jsonl")
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(fixtures_dir / "ruler/assets/tiktoken"))
    expected = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    task = official(name, fixtures_dir / "ruler/assets")
    made = list(rows(task, load_tokenizer(tokenizer), ctx, len(expected), 42))
    for ours, theirs in zip(made, expected, strict=True):
        for key in COMPARED:
            assert ours[key] == theirs[key], key
        assert ours["length_w_model_temp"] == theirs["length_w_model_temp"]
        assert ours.get("token_position_answer") == theirs.get("token_position_answer")


@pytest.mark.parametrize("name", ROWS_SHA256)
def test_rows_that_need_no_file_have_the_official_content(words: Tokenizer, name: str) -> None:
    h = hashlib.sha256()
    for row in rows(official(name), words, 1024, 5, 42):
        h.update(json.dumps([row[key] for key in COMPARED]).encode() + b"\n")
    assert h.hexdigest() == ROWS_SHA256[name]


def test_the_stream_leaves_the_global_random_states_alone_and_ignores_them(words: Tokenizer) -> None:
    random.seed(1)
    np.random.seed(1)
    before = random.getstate()
    first = list(rows(official("vt"), words, 1024, 2, 42))
    assert random.getstate() == before
    random.seed(2)
    assert list(rows(official("vt"), words, 1024, 2, 42)) == first


@pytest.mark.parametrize("name", ["niah_single_1", "niah_multikey_3", "vt", "cwe", "fwe"])
def test_fewer_samples_are_the_beginning_of_more(words: Tokenizer, name: str) -> None:
    task = official(name)
    assert list(task.samples(words, 1024, 2, 7)) == list(task.samples(words, 1024, 4, 7))[:2]


@pytest.mark.parametrize("name", SPECS)
def test_a_context_that_is_too_small_ends_with_its_minimum(
    request: pytest.FixtureRequest, words: Tokenizer, name: str
) -> None:
    spec = SPECS[name]
    needs_files = spec.kind == "qa" or (spec.needles is not None and spec.needles.haystack == "essay")
    folder = request.getfixturevalue("fixtures_dir") / "ruler/assets" if needs_files else None
    task = official(name, folder)
    for ctx in (1, 40, 150):
        with pytest.raises(ContextTooSmall, match="or more") as error:
            list(task.samples(words, ctx, 2, 42))
        minimum = error.value.minimum_tokens
        assert ctx < minimum < 1024
    for sample in task.samples(words, minimum, 2, 42):
        assert sample.prompt_tokens + sample.max_new_tokens <= minimum
    with pytest.raises(ContextTooSmall):
        list(task.samples(words, minimum - 1, 2, 42))


def test_a_sample_says_what_it_is(words: Tokenizer) -> None:
    sample = next(iter(official("niah_single_1").samples(words, 1024, 1, 42)))
    assert sample.id == "ruler/niah_single_1@official-1/1024/s42/i0"
    assert sample.max_new_tokens == SPECS["niah_single_1"].budget
    assert sample.prompt_tokens == words.count(words.render(sample.prompt, sample.answer_prefix))
    depth = sample.meta["depth_percent"][0]
    assert 0 <= depth <= 100
    assert abs(str(sample.prompt).find(sample.references[0]) / len(sample.prompt) - depth / 100) < 0.05


def test_more_samples_than_questions_are_refused(fixtures_dir: Path, words: Tokenizer) -> None:
    task = official("qa_2", fixtures_dir / "ruler/assets")
    with pytest.raises(UsageError, match="160 questions"):
        list(task.samples(words, 1024, 161, 42))


def test_many_distinct_words_need_the_second_vocabulary(tmp_path: Path, words: Tokenizer) -> None:
    task = official("cwe", tmp_path)
    with pytest.raises(UsageError, match=r"english_words\.json"):
        list(task.samples(words, 131072, 1, 42))
    vocabulary = {str(i): f"w{i}x" for i in range(40000)}
    (tmp_path / "english_words.json").write_text(json.dumps(vocabulary))
    sample = next(iter(official("cwe", tmp_path).samples(words, 131072, 1, 42)))
    assert sample.meta["size"] > 8166
    assert "english_words.json unrecognised" in sample.meta["vocabulary"]
    assert all(answer.startswith("w") for answer in sample.references)


def test_data_are_named_by_revision_or_as_unrecognised(fixtures_dir: Path) -> None:
    folder = fixtures_dir / "ruler/assets"
    assert "baseline_ruler-314ff30" in official("niah_single_2", folder).data_revision
    squad = official("qa_1", folder)
    assert "unrecognised" in squad.data_revision
    assert hashlib.sha256((folder / "squad.json").read_bytes()).hexdigest() in squad.data_revision
    assert official("niah_single_1").data_revision == "wonderwords-3.0.1"


@pytest.mark.parametrize(("name", "file", "ctx"), [("qa_1", "squad.json", 1024), ("cwe", "english_words.json", 131072)])
@pytest.mark.parametrize("content", ['{"rows": []}', "[1]", "not JSON"])
def test_a_file_of_another_shape_is_a_usage_error(
    tmp_path: Path, words: Tokenizer, name: str, file: str, ctx: int, content: str
) -> None:
    (tmp_path / file).write_text(content)
    with pytest.raises(UsageError, match=file) as error:
        list(official(name, tmp_path).samples(words, ctx, 1, 42))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", ['{"text": " "}', '{"text": 1}', "[1]"])
def test_essays_that_are_none_are_a_usage_error(tmp_path: Path, content: str) -> None:
    (tmp_path / "PaulGrahamEssays.json").write_text(content)
    with pytest.raises(UsageError, match=r"PaulGrahamEssays\.json"):
        read_essays(tmp_path / "PaulGrahamEssays.json", tmp_path)


@pytest.mark.parametrize("spoil", [{"question": None}, {"answers": []}, {"answers": [{"text": None}]}])
def test_a_damaged_question_is_a_usage_error_naming_it(tmp_path: Path, words: Tokenizer, spoil: dict[str, Any]) -> None:
    asked = {"question": "Where?", "answers": [{"text": "Here"}], "is_impossible": False}
    paragraph = {"context": "It is here.", "qas": [asked, {**asked, **spoil}]}
    (tmp_path / "squad.json").write_text(json.dumps({"data": [{"paragraphs": [paragraph]}]}))
    with pytest.raises(UsageError, match="question 1 lacks"):
        list(official("qa_1", tmp_path).samples(words, 1024, 1, 42))


def test_one_row_of_a_fixture_is_one_request_continued_from_the_prefix(words: Tokenizer) -> None:
    task: Any = official("fwe")
    sample = next(islice(task.samples(words, 1024, 1, 42), 1))
    (request,) = task.step(sample, [])
    assert request.kind == "generate"
    assert (request.prompt, request.answer_prefix) == (sample.prompt, sample.answer_prefix)
    assert request.max_new_tokens == 50
