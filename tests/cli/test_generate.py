"""`kleval generate` writes all rows or none, the same to a file as to stdout."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from kleval.cli.main import call

Capture = pytest.CaptureFixture[str]
COMMAND = ["generate", "ruler/niah_single_1", "--ctx", "512,1k", "--tokenizer", "words", "--limit", "2"]


def test_rows_have_what_the_manual_promises(capsys: Capture) -> None:
    assert call(COMMAND) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(row["ctx"], row["index"]) for row in rows] == [(512, 0), (512, 1), (1024, 0), (1024, 1)]
    for row in rows:
        assert {"input", "answer_prefix", "outputs", "length", "edition", "protocol", "prompt_hash"} <= set(row)
        assert row["length"] <= row["ctx"]
        assert row["outputs"][0] in row["input"]


def test_a_file_gets_what_stdout_gets(capsys: Capture) -> None:
    assert call(COMMAND) == 0
    shown = capsys.readouterr().out
    assert call([*COMMAND, "--out", "new/rows.jsonl"]) == 0
    said = capsys.readouterr()
    assert said.out == ""
    assert "4 rows" in said.err
    assert Path("new/rows.jsonl").read_text("utf-8") == shown


def test_the_seed_matters(capsys: Capture) -> None:
    assert call(COMMAND) == 0
    first = capsys.readouterr().out
    assert call([*COMMAND, "--seed", "7"]) == 0
    assert capsys.readouterr().out != first


def test_a_family_is_all_of_its_tasks_made_by_several_processes_or_one(capsys: Capture, tmp_path: Path) -> None:
    command = ["generate", "ruler", "--ctx", "4k", "--tokenizer", "words", "--limit", "1"]
    assert call([*command, "--workers", "0"]) == 0
    alone = capsys.readouterr().out
    assert len({json.loads(line)["task"] for line in alone.splitlines()}) == 13
    assert call([*command, "--workers", "1", "--sample-cache", str(tmp_path / "kept")]) == 0
    assert capsys.readouterr().out == alone
    assert len(list((tmp_path / "kept").glob("*.jsonl.gz"))) == 13


def test_a_failure_leaves_no_file(one_line: Callable[..., str], tmp_path: Path) -> None:
    assert "needs" in one_line([*COMMAND, "--ctx", "8,16", "--out", "rows.jsonl"])
    assert list(tmp_path.iterdir()) == []


def test_a_length_that_is_too_small_is_skipped_with_its_reason(capsys: Capture) -> None:
    assert call([*COMMAND, "--ctx", "16,512"]) == 0
    said = capsys.readouterr()
    assert {json.loads(line)["ctx"] for line in said.out.splitlines()} == {512}
    assert "skipped: ruler/niah_single_1 (builtin) does not fit into ctx 16" in said.err


def test_samples_that_do_not_fit_are_counted(capsys: Capture, tmp_path: Path) -> None:
    row = {"instruction": "x", "clean_reference": "y()", "unique_apis": ["y"], "project_defined_elements": ["y"]}
    rows = [{**row, "instruction": "word " * 9999}, row]
    (tmp_path / "lca-library-based-code-generation.json").write_text(json.dumps(rows))
    command = ["generate", "lca/lib", "--edition", "official", "--data-dir", ".", "--ctx", "4k", "--tokenizer", "words"]
    assert call(command) == 0
    said = capsys.readouterr()
    assert [json.loads(line)["index"] for line in said.out.splitlines()] == [1]
    assert "lca/lib at 4096: 1 sample skipped" in said.err


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["generate", "ruler/niah_singel_1"], "ruler/niah_single_1"),
        ([*COMMAND, "--tokenizer", "wrods"], "words"),
        ([*COMMAND, "--edition", "oficial"], "official"),
        ([*COMMAND, "--ctx", "two"], "'two' is not a length"),
        ([*COMMAND, "--out", "."], "directory"),
    ],
)
def test_what_cannot_be_done_is_one_line(argv: list[str], expected: str, one_line: Callable[..., str]) -> None:
    assert expected in one_line(argv)


def test_a_tokenizer_that_does_not_grow_with_the_text_is_one_line(one_line: Callable[..., str], tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models

    Tokenizer(models.WordLevel({"<unk>": 0}, unk_token="<unk>")).save(str(tmp_path / "tokenizer.json"))
    assert "does not grow with the text" in one_line([*COMMAND, "--tokenizer", f"hf:{tmp_path}"])
