"""Loaders on rows as their authors published them: right answers score 1, wrong and empty ones 0."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kleval.tasks import data, registry
from kleval.tasks.frames import official as frames
from kleval.tasks.short import maths
from kleval.types import Completion


def scored(task: Any, answer_of: Any, n: int = 3, ctx: int = 65536) -> list[list[float]]:
    """Of the first samples, the headline for a right, a wrong and an empty answer."""
    from kleval.tokenization import load_tokenizer

    found = []
    for sample in task.samples(load_tokenizer("words"), ctx, n, 42):
        answers = (answer_of(sample), "The answer is \\boxed{-987654.5}.", "")
        found.append([task.score(sample, Completion(text, 1, 1)).metrics[task.metric] for text in answers])
    return found


@pytest.mark.parametrize("n", [20, pytest.param(500, marks=pytest.mark.slow)])
def test_polymath_scores_its_own_answers(real_rows: Path, n: int) -> None:
    task = registry.load_task("short/polymath_en", edition="official", data_dir=real_rows)
    items = sorted(scored(task, lambda sample: f"So it is $\\boxed{{{sample.references[0]}}}$.", n=n))
    # One answer of the 500 lacks a closing bracket, so that no box holds it.
    lost = 1 if n == 500 else 0
    assert items == [[0.0, 0.0, 0.0]] * lost + [[1.0, 0.0, 0.0]] * (n - lost)


def test_polymath_asks_to_the_byte(real_rows: Path) -> None:
    from kleval.tokenization import load_tokenizer

    task = registry.load_task("short/polymath_en", edition="official", data_dir=real_rows)
    sample = next(iter(task.samples(load_tokenizer("words"), 65536, 1, 42)))
    assert str(sample.prompt).endswith("\nNote: Please put the final answer in the $\\boxed\\{\\}$.")


def test_every_gold_answer_of_math_500_equals_itself(real_rows: Path) -> None:
    lines = (real_rows / "MATH-500" / "test.jsonl").read_text("utf-8").splitlines()
    answers = [json.loads(line)["answer"] for line in lines]
    assert len(answers) == 500
    assert all(maths.equal(answer, f"${answer}$") for answer in answers)
    assert not any(maths.equal("-987654.5", answer) for answer in answers[:25])


@pytest.mark.parametrize("row", [90, 199, 230, 231, 444, 537, 540, 615, 644])
def test_frames_rows_of_several_addresses_can_be_asked(real_rows: Path, row: int) -> None:
    path = real_rows / "frames" / "test.tsv"
    asked = frames.linked(path, data.file_sha256(path))
    assert len(asked) == 824
    assert all(" " not in url and "," not in url[-1:] for url in asked[row][2])


def test_frames_mobile_and_bare_addresses_find_their_pages(real_rows: Path) -> None:
    path = real_rows / "frames" / "test.tsv"
    odd = [url for one in frames.linked(path, data.file_sha256(path)) for url in one[2] if ".m.wiki" in url]
    bare = [url for one in frames.linked(path, data.file_sha256(path)) for url in one[2] if "://" not in url]
    assert (len(odd), len(bare)) == (28, 2)
    for url in (*odd, *bare):
        page = "https://en.wikipedia.org/wiki/" + url.partition("/wiki/")[2]
        assert frames.known(url, {page}) == page


def test_nlu_is_read_whole(real_rows: Path) -> None:
    task = registry.load_task("helmet_icl/nlu", edition="official", data_dir=real_rows)
    assert "nlu" in task.data_revision


@pytest.mark.parametrize("name", ["humaneval_plus", "mbpp_plus"])
def test_code_rows_are_read(real_rows: Path, name: str) -> None:
    task: Any = registry.load_task(f"code/{name}", edition="official", data_dir=real_rows)
    assert len(task.problems) == {"humaneval_plus": 164, "mbpp_plus": 48}[name]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "protocol"),
    [("humaneval_plus", None), ("mbpp_plus", None), ("mbpp_plus", "evalplus-tests")],
)
def test_code_rows_pass_with_their_own_solutions_alone(real_rows: Path, name: str, protocol: str | None) -> None:
    task: Any = registry.load_task(f"code/{name}", edition="official", protocol=protocol, data_dir=real_rows)
    for problem in task.problems[:3]:
        for answer, expected in ((problem.solution, 1.0), ("    return None\n", 0.0), ("", 0.0)):
            metrics, reason = task.benchmark.grade(problem, [answer.removesuffix("\n[DONE]")])
            assert metrics["pass@1"] == expected, (problem.name, reason)


@pytest.mark.parametrize("family", ["code", "helmet_icl", "gsm8k", "bbh"])
def test_verify_finds_what_the_loaders_read(real_rows: Path, family: str) -> None:
    assert all(status.good for status in data.verify(family, real_rows))


@pytest.mark.parametrize(
    ("name", "set_", "rows", "metric"),
    [
        ("mmlu_abstract_algebra", "mmlu/abstract_algebra/test.jsonl", 100, "acc"),
        ("arc_challenge", "ai2_arc/ARC-Challenge/validation.jsonl", 294, "acc_norm"),
    ],
)
def test_choices_of_mmlu_and_arc_are_scored(
    real_rows: Path, tmp_path: Path, name: str, set_: str, rows: int, metric: str
) -> None:
    pytest.importorskip("lm_eval")
    from kleval.tokenization import load_tokenizer

    place = tmp_path / Path(set_).parent
    place.mkdir(parents=True)
    lines = (real_rows / set_).read_bytes()
    (place / "test.jsonl").write_bytes(lines)
    (place / "validation.jsonl").write_bytes(lines)
    (place / "dev.jsonl").write_bytes(lines)
    task: Any = registry.load_task(f"lm_eval/{name}", edition="official", data_dir=tmp_path)
    samples = list(task.samples(load_tokenizer("words"), 65536, rows + 9, 42))
    assert len(samples) == rows
    for sample, line in zip(samples, lines.splitlines(), strict=True):
        row = json.loads(line)
        labels = row["choices"]["label"] if "answerKey" in row else [0, 1, 2, 3]
        right = labels.index(row["answerKey"] if "answerKey" in row else row["answer"])
        asked = task.step(sample, ())
        assert len(asked) == len(labels)
        for likely in (right, (right + 1) % len(labels)):
            got = tuple(
                Completion(one.continuation, 9, 1, logprob_sum=-0.1 if at == likely else -1e4)
                for at, one in enumerate(asked)
            )
            assert task.step(sample, got).metrics[metric] == float(likely == right)
