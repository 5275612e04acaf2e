from __future__ import annotations

import json

import pytest

from kleval.tasks.generate import rows
from kleval.tasks.registry import load_task
from kleval.types import ContextTooSmall, Tokenizer

OFFICIAL = {"index", "input", "outputs", "length", "length_w_model_temp", "answer_prefix"}
OURS = {"id", "ctx", "prompt_hash", "edition", "protocol", "data_revision", "data_digest"}


@pytest.mark.parametrize("edition", ["builtin", "official"])
def test_rows_hold_the_official_fields_and_where_they_come_from(words: Tokenizer, edition: str) -> None:
    task = load_task("ruler/niah_multikey_2", edition=edition)
    made = list(rows(task, words, 1024, 3, 1))
    assert [row["index"] for row in made] == [0, 1, 2]
    for row, sample in zip(made, task.samples(words, 1024, 3, 1), strict=True):
        assert set(row) >= OFFICIAL | OURS | {"token_position_answer"}
        assert row["length"] == words.count(row["input"] + row["answer_prefix"]) + sample.max_new_tokens
        assert (row["id"], row["prompt_hash"], row["edition"]) == (sample.id, sample.prompt_hash, edition)
        assert json.loads(json.dumps(row)) == row


def test_only_needle_rows_have_a_needle_position(words: Tokenizer) -> None:
    (row,) = rows(load_task("ruler/fwe"), words, 1024, 1, 1)
    assert "token_position_answer" not in row
    (row,) = rows(load_task("ruler/niah_single_1"), words, 1024, 1, 1)
    before = row["input"][: row["input"].index(row["outputs"][0])]
    assert row["token_position_answer"] == words.count(before)


def test_no_rows_where_nothing_fits(words: Tokenizer) -> None:
    with pytest.raises(ContextTooSmall, match="ruler/vt"):
        list(rows(load_task("ruler/vt"), words, 100, 1, 1))
