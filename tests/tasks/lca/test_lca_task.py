"""The tasks lca/lib and lca/commit in both editions."""

from __future__ import annotations

import ast
import json
import statistics
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from kleval.tasks.lca.task import BM25, SIMPLE, CommitTask, LibraryTask
from kleval.tasks.registry import expand, load_task
from kleval.types import Completion, ContextTooSmall, Sample, Tokenizer, Unfit, UsageError

TASKS = ("lca/lib", "lca/commit")


def task(
    name: str, edition: str = "builtin", protocol: str | None = None, data_dir: Path | None = None
) -> LibraryTask | CommitTask:
    loaded = load_task(name, edition, protocol, data_dir)
    assert isinstance(loaded, LibraryTask | CommitTask)
    return loaded


def made(one: LibraryTask | CommitTask, tokenizer: Tokenizer, ctx: int, n: int, seed: int = 0) -> list[Sample]:
    return [sample for sample in one.samples(tokenizer, ctx, n, seed) if isinstance(sample, Sample)]


def score(one: LibraryTask | CommitTask, sample: Sample, text: str) -> dict[str, float]:
    return dict(one.score(sample, Completion(text, 0, 0)).metrics)  # type: ignore[attr-defined]


@pytest.mark.parametrize("ctx", [1024, 8192, 65536])
@pytest.mark.parametrize("name", TASKS)
def test_an_oracle_gets_full_marks_and_an_empty_answer_none(name: str, ctx: int, words: Tokenizer) -> None:
    one = task(name)
    for sample in made(one, words, ctx, 6):
        oracle = score(one, sample, sample.references[0])
        assert list(oracle.values()) == pytest.approx([1.0] * len(oracle))
        assert score(one, sample, "")[one.metric] == 0
        assert score(one, sample, "")["chrf"] == 0


def test_another_script_calls_nothing_that_is_wanted(words: Tokenizer) -> None:
    one = task("lca/lib")
    samples = made(one, words, 8192, 12)
    assert {score(one, a, b.references[0])["api_recall"] for a, b in pairwise(samples)} == {0.0}


def test_another_message_scores_near_zero(words: Tokenizer) -> None:
    one = task("lca/commit")
    samples = made(one, words, 2048, 60)
    scored = [score(one, a, b.references[0]) for a, b in pairwise(samples)]
    for metric, limit in {"chrf": 0.25, "rouge1": 0.3, "rouge2": 0.1, "rougeL": 0.3, "bleu": 0.15}.items():
        assert statistics.mean(s[metric] for s in scored) < limit


@pytest.mark.parametrize("ctx", [1024, 4096, 65536])
@pytest.mark.parametrize("name", TASKS)
def test_ctx_holds_prompt_and_answer_and_is_used(name: str, ctx: int, tiny_bpe: Tokenizer) -> None:
    for sample in made(task(name), tiny_bpe, ctx, 3):
        assert sample.prompt_tokens == tiny_bpe.count(tiny_bpe.render(sample.prompt))
        assert ctx * 0.8 < sample.prompt_tokens + sample.max_new_tokens <= ctx
        assert sample.max_new_tokens >= tiny_bpe.count(sample.references[0]) * 1.5 + 16


@pytest.mark.parametrize("name", TASKS)
def test_a_sample_does_not_depend_on_those_before_it(name: str, words: Tokenizer) -> None:
    busy = task(name)
    made(busy, words, 1024, 2, seed=9)
    assert made(busy, words, 4096, 3) == made(task(name), words, 4096, 5)[:3]


@pytest.mark.parametrize("name", TASKS)
def test_seeds_and_samples_differ(name: str, words: Tokenizer) -> None:
    samples = [*made(task(name), words, 2048, 5), *made(task(name), words, 2048, 5, seed=1)]
    assert len({s.prompt_hash for s in samples}) == len({s.id for s in samples}) == 10


@pytest.mark.parametrize("name", TASKS)
def test_too_small_a_context_names_one_that_is_enough(name: str, words: Tokenizer) -> None:
    with pytest.raises(ContextTooSmall) as error:
        made(task(name), words, 64, 1)
    assert error.value.minimum_tokens > 64
    assert made(task(name), words, 2 * error.value.minimum_tokens, 1)


def test_the_library_is_python_and_holds_each_wanted_function_once(words: Tokenizer) -> None:
    for sample in made(task("lca/lib"), words, 16384, 3):
        text = words.render(sample.prompt)
        code = text.partition("\n\n")[2].partition("\n\nGenerate Python code")[0]
        defined = [n.name for n in ast.walk(ast.parse(code)) if isinstance(n, ast.FunctionDef)]
        assert len(defined) == len(set(defined)) == sample.meta["library_functions"]
        ast.parse(sample.references[0])
        for module, api in zip(sample.meta["modules"], sample.meta["apis"], strict=True):
            assert code.count(f"def {api}(") == 1
            assert f"from {sample.meta['package']}.{module} import {api}\n" in sample.references[0]
            assert f"# {sample.meta['package']}/{module}.py\n" in code


def test_the_script_runs_with_the_library(words: Tokenizer) -> None:
    sample = made(task("lca/lib"), words, 8192, 1)[0]
    code = words.render(sample.prompt).partition("\n\n")[2].partition("\n\nGenerate Python code")[0]
    script = "\n".join(line for line in sample.references[0].split("\n") if not line.startswith("from "))
    space: dict[str, Any] = {"__name__": "__main__", "print": lambda item: space.update(printed=item)}
    exec(compile(f"{code}\n{script}", "sample", "exec"), space)  # noqa: S102
    assert "name" in space["printed"]


def test_instructions_do_not_name_the_functions(words: Tokenizer) -> None:
    for sample in made(task("lca/lib"), words, 4096, 5):
        asked = words.render(sample.prompt).partition("Instruction: ")[2]
        assert not [api for api in sample.meta["apis"] if api in asked]


def test_all_kinds_of_commits_come_and_say_nothing_that_the_diff_does_not(words: Tokenizer) -> None:
    samples = made(task("lca/commit"), words, 2048, 80)
    assert len({s.meta["kind"] for s in samples}) == 7
    common = set("Rename Add Raise Remove Return Move to in from use when module parameter".split())  # noqa: SIM905
    for sample in samples:
        diff = words.render(sample.prompt).partition("\nDiff:\n")[2]
        words_of_it = sample.references[0].replace(",", "").split()
        assert not [word for word in words_of_it if word not in common and word not in diff]


def test_the_official_library_edition_asks_in_order(
    tmp_path: Path, library_rows: list[dict[str, Any]], words: Tokenizer
) -> None:
    (tmp_path / LibraryTask.file).with_suffix(".json").write_text(json.dumps(library_rows), encoding="utf-8")
    plain, bm25 = (task("lca/lib", "official", protocol, tmp_path) for protocol in (None, BM25))
    samples = made(plain, words, 4096, 10)
    assert [s.references[0] for s in samples] == [row["clean_reference"] for row in library_rows]
    assert {s.max_new_tokens for s in samples} == {2048}
    assert "APIs from the library" not in words.render(samples[0].prompt)
    assert "APIs from the library helpful:\n" in words.render(made(bm25, words, 4096, 1)[0].prompt)
    assert score(plain, samples[0], f"```python\n{samples[0].references[0]}```")["api_recall"] == 1


def test_the_official_commit_edition_asks_in_order(
    tmp_path: Path, commit_rows: list[dict[str, Any]], words: Tokenizer
) -> None:
    (tmp_path / CommitTask.file).with_suffix(".json").write_text(json.dumps(commit_rows), encoding="utf-8")
    detailed, simple = (task("lca/commit", "official", protocol, tmp_path) for protocol in (None, SIMPLE))
    samples = made(detailed, words, 2048, 10)
    assert [s.references[0] for s in samples] == [row["message"] for row in commit_rows]
    assert {s.max_new_tokens for s in samples} == {512}
    assert made(simple, words, 2048, 1)[0].prompt_tokens < samples[0].prompt_tokens
    assert made(simple, words, 2048, 1)[0].id != samples[0].id


def test_what_does_not_fit_is_passed_over_with_its_minimum(
    tmp_path: Path, library_rows: list[dict[str, Any]], words: Tokenizer
) -> None:
    library_rows[1]["instruction"] = "word " * 500
    (tmp_path / LibraryTask.file).with_suffix(".json").write_text(json.dumps(library_rows), encoding="utf-8")
    first, second, third = task("lca/lib", "official", None, tmp_path).samples(words, 2200, 2, 0)
    assert isinstance(first, Sample)
    assert isinstance(third, Sample)
    assert isinstance(second, Unfit)
    assert second.minimum_tokens > 2500


def test_protocols_belong_to_editions() -> None:
    with pytest.raises(UsageError, match="no protocol"):
        task("lca/lib", "builtin", BM25)


@pytest.mark.parametrize("name", TASKS)
def test_the_card_says_what_it_must(name: str) -> None:
    card = task(name).card()
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
    assert "Kimi Linear paper" in card["unknown"]
    json.dumps(card)


def test_the_family_is_registered() -> None:
    assert expand(["lca"]) == list(TASKS)
