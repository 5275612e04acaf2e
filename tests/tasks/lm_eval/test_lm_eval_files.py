"""Where data sets lie, and what is read of them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from kleval.tasks.assets import ASSETS, Asset
from kleval.tasks.data import MissingData, verify
from kleval.tasks.lm_eval import files, loading
from kleval.tasks.lm_eval.files import Needed
from kleval.types import UsageError

pytest.importorskip("lm_eval")
GSM8K = Needed("gsm8k", "openai/gsm8k", "main", "test", ("train",))
NAVIGATE = Needed("bbh_zeroshot_navigate", "SaylorTwift/bbh", "navigate", "test")
ROWS = [{"question": "1 + 1?", "answer": "#### 2"}, {"question": "2 + 2?", "answer": "#### 4"}]


def lines(path: Path, rows: list[dict[str, str]] = ROWS) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("folder", ["gsm8k", "openai__gsm8k", "lm_eval/gsm8k", "gsm8k/main"])
def test_a_data_set_is_found_by_its_names(tmp_path: Path, folder: str) -> None:
    for split in ("train", "test"):
        lines(tmp_path / folder / f"{split}.jsonl")
    found = files.find(GSM8K, tmp_path, "lm_eval/gsm8k")
    assert set(found.splits) == {"train", "test"}
    assert list(files.read(found, "test")) == ROWS


def test_a_data_directory_may_be_the_data_set_itself(tmp_path: Path) -> None:
    lines(tmp_path / "gsm8k" / "test.jsonl")
    assert "test" in files.find(GSM8K, tmp_path / "gsm8k", "lm_eval/gsm8k").splits


def test_the_authors_shape_of_bbh_is_read(tmp_path: Path) -> None:
    rows = [{"input": "?", "target": "Yes"}]
    file = tmp_path / "bbh" / "navigate.json"
    file.parent.mkdir()
    file.write_text(json.dumps({"canary": "text", "examples": rows}))
    found = files.find(NAVIGATE, tmp_path, "lm_eval/bbh")
    assert list(files.read(found, "test")) == rows
    assert found.revision == "unrecognised: navigate.json (the authors' shape)"


def test_parquet_in_parts_is_one_split(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    folder = tmp_path / "bbh" / "navigate" / "data"
    folder.mkdir(parents=True)
    for part in range(2):
        made = datasets.Dataset.from_list([{"input": str(part), "target": "No"}])
        made.to_parquet(str(folder / f"test-0000{part}-of-00002.parquet"))
    found = files.find(NAVIGATE, tmp_path, "lm_eval/bbh")
    assert files.read(found, "test")["input"] == ["0", "1"]
    assert "the hub's shape" in found.revision


def test_what_labels_mean_comes_along_with_parquet(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"label": datasets.ClassLabel(names=["no", "yes"])})
    (tmp_path / "bbh" / "navigate").mkdir(parents=True)
    made = datasets.Dataset.from_list([{"label": 1}], features=features)
    made.to_parquet(str(tmp_path / "bbh" / "navigate" / "test.parquet"))
    found = files.find(NAVIGATE, tmp_path, "lm_eval/bbh")
    assert files.read(found, "test").features["label"].names == ["no", "yes"]


def test_splits_beside_configurations_belong_to_none_of_them(tmp_path: Path) -> None:
    lines(tmp_path / "bbh" / "test.jsonl")
    with pytest.raises(MissingData):
        files.find(NAVIGATE, tmp_path, "lm_eval/bbh")


def test_missing_data_name_the_command_that_gets_them(tmp_path: Path) -> None:
    with pytest.raises(MissingData, match=f"`kleval data fetch lm_eval/bbh --data-dir {tmp_path}`") as caught:
        files.find(NAVIGATE, tmp_path, "lm_eval/bbh")
    assert caught.value.family == "lm_eval/bbh"


def test_the_digest_depends_on_every_split(tmp_path: Path) -> None:
    for split in ("train", "test"):
        lines(tmp_path / "gsm8k" / f"{split}.jsonl")
    before = files.find(GSM8K, tmp_path, "lm_eval/gsm8k").digest
    lines(tmp_path / "gsm8k" / "train.jsonl", ROWS[:1])
    assert files.find(GSM8K, tmp_path, "lm_eval/gsm8k").digest != before


def test_known_files_are_called_by_their_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sha256 = hashlib.sha256(lines(tmp_path / "gsm8k" / "test.jsonl").read_bytes()).hexdigest()
    asset = Asset("test.jsonl", "https://nowhere", {sha256: "the-authors"}, 1, "MIT", "gsm8k")
    monkeypatch.setitem(ASSETS, "gsm8k", (asset,))
    found = files.find(GSM8K, tmp_path, "lm_eval/gsm8k")
    assert found.revision == "the-authors (test.jsonl; the authors' shape)"


def test_a_file_that_is_no_data_is_told(tmp_path: Path) -> None:
    (tmp_path / "gsm8k").mkdir()
    (tmp_path / "gsm8k" / "test.jsonl").write_text("{")
    with pytest.raises(UsageError, match=r"test\.jsonl row 0 is not JSON"):
        files.read(files.find(GSM8K, tmp_path, "lm_eval/gsm8k"), "test")


def test_a_row_without_an_answer_is_told_and_not_scored_against_none(tmp_path: Path) -> None:
    (tmp_path / "gsm8k").mkdir()
    (tmp_path / "gsm8k" / "test.jsonl").write_text('{"question": "a", "answer": "b"}\n{"question": "c"}\n')
    with pytest.raises(UsageError, match="row 1: field 'answer' is missing"):
        files.read(files.find(GSM8K, tmp_path, "lm_eval/gsm8k"), "test")


def test_columns_of_mixed_types_are_told(tmp_path: Path) -> None:
    (tmp_path / "gsm8k").mkdir()
    (tmp_path / "gsm8k" / "test.jsonl").write_text('{"a": 1}\n{"a": "x"}\n')
    with pytest.raises(UsageError, match="different types"):
        files.read(files.find(GSM8K, tmp_path, "lm_eval/gsm8k"), "test")


def test_the_real_files_are_known(fixtures_dir: Path) -> None:
    folder = fixtures_dir.parent / "data"
    if not (folder / "bbh").is_dir():
        pytest.skip(f"no real data sets at {folder}")
    states = {s.name: s.state for s in verify("bbh", folder)}
    assert set(states.values()) == {"ok"}
    assert len(states) == 27
    found = files.find(NAVIGATE, folder, "lm_eval/bbh")
    assert found.revision == "suzgunmirac-BIG-Bench-Hard (navigate.json; the authors' shape)"


def test_whole_numbers_that_were_written_as_floats_are_labels(tmp_path: Path) -> None:
    rows = [{"question": "a", "answer": 1.0, "weight": 1.5}, {"question": "b", "answer": 3.0, "weight": 2.0}]
    (tmp_path / "gsm8k").mkdir()
    (tmp_path / "gsm8k" / "test.json").write_text(json.dumps(rows))
    read = files.read(files.find(GSM8K, tmp_path, "lm_eval/gsm8k"), "test")
    assert [(type(row["answer"]), row["answer"], row["weight"]) for row in read] == [(int, 1, 1.5), (int, 3, 2.0)]


def test_every_split_that_settings_name_for_examples_is_needed() -> None:
    config = {"dataset_path": "a/b", "test_split": "test", "fewshot_split": "shots", "fewshot_config": {"split": "dev"}}
    needed = loading.needs("t", {**config, "training_split": "train"})
    assert (set(needed.others), needed.drawn) == ({"shots", "dev", "train"}, "shots")
    samples = {
        "dataset_path": "a/b",
        "test_split": "test",
        "fewshot_config": {"samples": []},
        "training_split": "train",
    }
    assert loading.needs("t", samples).drawn == "train"
    assert loading.needs("t", {**samples, "fewshot_config": {"samples": [{}]}}).drawn is None
