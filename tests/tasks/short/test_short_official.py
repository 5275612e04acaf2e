"""The official editions read their data in every layout, say what is missing, and score what they ask."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from kleval.tasks import data
from kleval.tasks.registry import load_task
from kleval.tasks.short.official import SUBJECTS
from kleval.tasks.short.task import ShortTask
from kleval.tokenization import load_tokenizer
from kleval.types import Completion, Sample, Score, UsageError

WORDS = load_tokenizer("words")


def write(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def official(name: str, folder: Path) -> ShortTask:
    task = load_task(name, "official", data_dir=folder)
    assert isinstance(task, ShortTask)
    return task


def samples(task: ShortTask, n: int = 100, ctx: int = 64_000) -> list[Sample]:
    return [sample for sample in task.samples(WORDS, ctx, n, 0) if isinstance(sample, Sample)]


def score(task: ShortTask, sample: Sample, text: str) -> float:
    made = task.score(sample, Completion(text, 1, 1))
    assert isinstance(made, Score)
    return made.metrics[task.metric]


def four(subject: str, n: int, error: str = "ok") -> dict[str, Any]:
    return {
        "question": f"{subject} {n}?",
        "choices": ["one", "two", "three", "four"],
        "answer": n % 4,
        "subject": subject,
        "error_type": error,
    }


@pytest.mark.parametrize("layout", ["jsonl", "parquet"])
def test_hmmt_asks_for_a_box_and_compares_expressions(tmp_path: Path, layout: str) -> None:
    rows = [{"problem_idx": 1, "problem": "Half of one?", "answer": "\\frac{1}{2}", "problem_type": ["Algebra"]}]
    file = tmp_path / "hmmt_feb_2025.jsonl"
    if layout == "jsonl":
        write(file, rows)
    else:
        pyarrow = pytest.importorskip("pyarrow")
        parquet = pytest.importorskip("pyarrow.parquet")
        parquet.write_table(pyarrow.Table.from_pylist(rows), file.with_suffix(".parquet"))
    task = official("short/hmmt25", tmp_path)
    (sample,) = samples(task)
    assert isinstance(sample.prompt, str)
    assert sample.prompt.startswith("Half of one?\n\nPlease reason step by step")
    assert score(task, sample, "It is $\\boxed{0.5}$.") == 1
    assert score(task, sample, "It is $\\boxed{2}$.") == 0
    (request,) = task.step(sample, ())  # type: ignore[misc]
    assert (request.temperature, request.max_new_tokens) == (1.0, 32768)


def test_polymath_takes_the_levels_in_turn_and_scores_each(tmp_path: Path) -> None:
    for level in ("low", "medium", "high", "top"):
        rows = [{"id": f"{level}-{i}", "question": f"{level} {i}?", "answer": f"${i}$"} for i in range(2)]
        write(tmp_path / "polymath" / "en" / f"{level}.jsonl", rows)
    task = official("short/polymath_en", tmp_path)
    found = samples(task)
    assert [sample.meta["group"] for sample in found[:5]] == ["low", "medium", "high", "top", "low"]
    made = task.score(found[4], Completion("\\boxed{1}", 1, 1))
    assert dict(made.metrics) == {"exact_match": 1, "exact_match low": 1}


def redux_dev(folder: Path) -> None:
    write(folder / "mmlu_dev.jsonl", [four(subject, i) for subject in ("anatomy", "astronomy") for i in range(10, 15)])


def test_mmlu_redux_leaves_out_marked_questions_and_shows_five_of_the_subject(tmp_path: Path) -> None:
    redux_dev(tmp_path)
    rows = [four("anatomy", 0), four("anatomy", 1, "wrong_groundtruth"), four("anatomy", 2), four("astronomy", 3)]
    write(tmp_path / "mmlu_redux.jsonl", rows)
    task = official("short/mmlu_redux", tmp_path)
    found = samples(task)
    prompts = [sample.prompt for sample in found]
    assert [prompt.rpartition("\n\n")[2].partition("?")[0] for prompt in prompts if isinstance(prompt, str)] == [
        "anatomy 0",
        "astronomy 3",
        "anatomy 2",
    ]
    first = prompts[0]
    assert isinstance(first, str)
    assert first.startswith(
        "The following are multiple choice questions (with answers) about anatomy.\n\nanatomy 10?\n"
    )
    assert first.count("Answer:") == 6
    assert "Answer: C\n\nanatomy 11?" in first
    requests = task.step(found[0], ())
    assert [request.continuation for request in requests] == [" A", " B", " C", " D"]  # type: ignore[union-attr]


def test_mmlu_redux_reads_the_hub_s_arrow_files(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    redux_dev(tmp_path)
    write(tmp_path / "mmlu_dev.jsonl", [four(subject, i) for subject in SUBJECTS for i in range(10, 15)])
    (tmp_path / "mmlu_redux").mkdir()
    for subject in SUBJECTS:
        rows = [{k: v for k, v in four(subject, i).items() if k != "subject"} for i in range(2)]
        table = pyarrow.Table.from_pylist(rows)
        path = tmp_path / "mmlu_redux" / f"{subject}.arrow"
        with path.open("wb") as file, pyarrow.ipc.new_stream(file, table.schema) as stream:
            stream.write_table(table)
    found = samples(official("short/mmlu_redux", tmp_path))
    assert len(found) == 100
    assert [sample.meta["group"] for sample in found[:57]] == list(SUBJECTS)
    (tmp_path / "mmlu_redux" / "virology.arrow").write_bytes(b"no arrow")
    with pytest.raises(UsageError, match="virology"):
        official("short/mmlu_redux", tmp_path)


def test_cmath_shows_one_problem_of_each_grade(tmp_path: Path) -> None:
    for part, n in (("dev", 3), ("test", 2)):
        rows = [
            {"grade": grade, "question": f"{part} {grade} {i}", "golden": str(10 * grade + i)}
            for grade in range(1, 7)
            for i in range(n)
        ]
        write(tmp_path / f"cmath_{part}.jsonl", rows)
    task = official("short/cmath", tmp_path)
    found = samples(task)
    assert len(found) == 12
    prompt = found[1].prompt
    assert isinstance(prompt, str)
    assert (
        prompt
        == "".join(f"问题：dev {grade} 0\n答案：{10 * grade}\n\n" for grade in range(1, 7)) + "问题：test 2 0\n答案："
    )
    made = task.score(found[1], Completion("20", 1, 1))
    assert dict(made.metrics) == {"exact_match": 1, "exact_match grade 2": 1}


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("short/hmmt25", "hmmt_feb_2025.parquet"),
        ("short/polymath_en", "polymath/en/low.jsonl"),
        ("short/mmlu_redux", "mmlu_redux/abstract_algebra.arrow"),
        ("short/cmath", "cmath_test.jsonl"),
        ("short/cruxeval_output_cot", "cruxeval/cruxeval.jsonl"),
    ],
)
def test_missing_data_names_the_command_that_gets_them(name: str, file: str, tmp_path: Path) -> None:
    with pytest.raises(data.MissingData) as caught:
        official(name, tmp_path)
    assert file in str(caught.value)
    assert "kleval data fetch short" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"problem": "x"}, "answer"),
        ({"problem": 3, "answer": "1"}, "problem"),
    ],
)
def test_a_bad_row_is_one_line_with_its_place(row: dict[str, Any], said: str, tmp_path: Path) -> None:
    write(tmp_path / "hmmt_feb_2025.jsonl", [{"problem": "a", "answer": "1"}, row])
    with pytest.raises(UsageError, match=f"row 1: field '{said}'"):
        official("short/hmmt25", tmp_path)


@pytest.mark.parametrize("change", [{"choices": ["a"]}, {"answer": 4}, {"answer": "A"}])
def test_a_question_without_four_choices_is_refused(change: dict[str, Any], tmp_path: Path) -> None:
    redux_dev(tmp_path)
    write(tmp_path / "mmlu_redux.jsonl", [four("anatomy", 0) | change])
    with pytest.raises(UsageError, match="row 0"):
        official("short/mmlu_redux", tmp_path)


def test_the_digest_is_of_the_files(tmp_path: Path) -> None:
    rows = [{"problem": "a", "answer": "1"}]
    file = write(tmp_path / "hmmt_feb_2025.jsonl", rows)
    first = official("short/hmmt25", tmp_path)
    assert first.data_digest == data.file_sha256(file)
    assert first.data_revision.startswith("unpinned")
    write(file, rows * 2)
    assert official("short/hmmt25", tmp_path).data_digest != first.data_digest


def test_every_download_has_a_place_and_an_address() -> None:
    assets = data.assets("short")
    assert len({asset.name for asset in assets}) == len(assets) == 66
    assert all(asset.url.startswith("https://") and asset.licence for asset in assets)
    assert len(SUBJECTS) == len(set(SUBJECTS)) == 57


def test_cruxeval_s_own_data_is_recognised_and_its_answers_are_right(fixtures_dir: Path) -> None:
    folder = fixtures_dir.parent / "data"
    if not (folder / "cruxeval" / "cruxeval.jsonl").is_file():
        pytest.skip(f"no cruxeval/cruxeval.jsonl in {folder}")
    task = official("short/cruxeval_output_cot", folder)
    assert task.data_revision == "facebookresearch-cruxeval"
    found = samples(task, 800)
    assert len(found) == 800
    answers = [score(task, sample, f"[ANSWER]assert f(1) == {sample.references[0]}[/ANSWER]") for sample in found]
    assert sum(answers) == 800
    assert sum(score(task, sample, "[ANSWER]'no such thing'[/ANSWER]") for sample in found) == 0
