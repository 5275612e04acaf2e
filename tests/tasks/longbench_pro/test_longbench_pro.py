"""LongBench Pro: scores as the official code has them, journals that are counted anew here, files of the published form as a loader."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from kleval.tasks.longbench_pro.scoring import KINDS, score
from kleval.tasks.longbench_pro.task import BANK, LENGTHS, PROTOCOLS, prompt
from kleval.tasks.registry import load_task, make_task
from kleval.types import Completion, ContextTooSmall, Tokenizer, Unfit, UsageError

GOLDEN: dict[str, Any] = json.loads(Path(__file__).with_name("golden.json").read_text("utf-8"))


def test_scores_equal_the_official_ones() -> None:
    assert len(GOLDEN["cases"]) == 116
    assert {KINDS[case[0]] for case in GOLDEN["cases"]} == set(KINDS.values())
    assert [case for case in GOLDEN["cases"] if score(*case[:3]) != pytest.approx(case[3])] == []


@pytest.mark.parametrize("kind", list(KINDS))
def test_an_empty_answer_is_0_and_a_right_one_1(kind: str) -> None:
    assert score(kind, ["a", "b"], "") == score(kind, ["a", "b"], " \n") == 0
    assert score(kind, ["a", "b"], "[Answer]\nA\nb") == 1


@pytest.mark.parametrize("language", list(BANK))
def test_answers_follow_from_the_journal(language: str, words: Tokenizer) -> None:
    task: Any = load_task(f"longbench_pro/{language.lower()}")
    samples = list(task.samples(words, 700, 24, 42))
    names, things, places = ("|".join(BANK[language][key].split()) for key in ("names", "things", "places"))
    found = {"name": f"(?P<name>{names})", "thing": f"(?P<thing>{things})", "place": f"(?P<place>{places})"}
    form = re.escape(BANK[language]["fact"]).replace(r"\{", "{").replace(r"\}", "}")
    fact = re.compile(form.format(n=r"(?P<n>\d+)", count=r"(?P<count>\d+)", **found))
    for sample in samples:
        rows = [match.groupdict() for match in fact.finditer(sample.prompt.split("\n\n\n\n")[0])]
        assert [row["n"] for row in rows] == [str(n) for n in range(1, 13)]
        kind, asked = sample.meta["kind"], sample.meta["question"]
        named = {
            key: next((one for one in BANK[language][f"{key}s"].split() if one in asked), "")
            for key in ("thing", "place")
        }
        number = re.search(r"\d+", asked)
        right = {
            "T3.2": [row["name"] for row in rows if number and row["n"] == number[0]],
            "T6.2": [row["n"] for row in rows if row["place"] == named["place"]],
            "T8.2": [str(sum(int(row["count"]) for row in rows if row["thing"] == named["thing"]))],
            "T2.1": list(dict.fromkeys(row["place"] for row in rows)),
        }[kind]
        assert sample.meta["right"] == right
        assert task.score(sample, Completion(sample.references[0], 1, 1)).metrics["score"] == 1
        assert 640 < sample.prompt_tokens + sample.max_new_tokens <= 700
    assert {sample.meta["kind"] for sample in samples} == set(BANK[language]["questions"])
    assert list(task.samples_at(words, 700, [23], 42)) == samples[23:]


def test_a_context_that_is_too_short_names_one_that_is_not(words: Tokenizer) -> None:
    task: Any = load_task("longbench_pro/english")
    with pytest.raises(ContextTooSmall) as raised:
        list(task.samples(words, 60, 1, 42))
    assert list(task.samples(words, raised.value.minimum_tokens + 40, 1, 42))


def row(**more: Any) -> dict[str, Any]:
    told = {
        "id": "a",
        "difficulty": "Hard",
        "contextual_requirement": "Full",
        "language": "English",
        "token_length": "8k",
    }
    asked = {"question_nonthinking": "Which?\n", "question_thinking": "Think. Which?", "answer": ["X", "Y"]}
    return {**told, **asked, "context": "word " * 50, "secondary_task": "T5.1 Full-Sentence Citation Alignment", **more}


def official(folder: Path, *rows: dict[str, Any], **more: Any) -> Any:
    (folder / "longbench_pro.json").write_text(json.dumps(rows), encoding="utf-8")
    return load_task(more.pop("task", "longbench_pro/english"), edition="official", data_dir=folder, **more)


def test_official_rows_are_those_of_the_language_and_the_longest_length_of_at_most_ctx(
    tmp_path: Path, words: Tokenizer
) -> None:
    left_out = [row(language="Chinese"), row(token_length="16k"), row(secondary_task="T4.2 Query-Focused Summary")]
    task = official(tmp_path, *left_out, row(), row(context="word " * 9000))
    sample, unfit = task.samples(words, 9000, 9, 42)
    assert isinstance(unfit, Unfit)
    assert sample.prompt == prompt("word " * 50, "Which?\n") == f"{'word ' * 50}\n\n\n\nWhich?"
    assert (sample.max_new_tokens, sample.references) == (1024, ("[Answer]\nX\nY",))
    assert task.score(sample, Completion("[Answer]\nx", 1, 1)).metrics == pytest.approx(
        dict.fromkeys(("score", "score T5", "score Hard", "score 8k"), 2 / 3)
    )
    assert task.question_alone(sample) == "\n\n\n\nWhich?"
    assert "unpinned" in task.data_revision


def test_the_protocol_that_thinks_asks_its_own_question(tmp_path: Path, words: Tokenizer) -> None:
    task = official(tmp_path, row(), protocol="longbench-pro-88fbeb8-thinking")
    (sample,) = task.samples(words, 12_000, 9, 42)
    assert sample.prompt.endswith("\n\nThink. Which?")
    assert sample.max_new_tokens == 8192


@pytest.mark.parametrize(
    ("ctx", "more", "said"),
    [
        (
            9000,
            {"secondary_task": "T12.1 New"},
            r"row 0: field 'secondary_task' is of no kind that can be scored: 'T12\.1'",
        ),
        (9000, {"answer": "X"}, "field 'answer' must be a list of texts"),
        (8000, {}, "no document below 8k"),
    ],
)
def test_what_cannot_be_asked_is_told(
    ctx: int, more: dict[str, Any], said: str, tmp_path: Path, words: Tokenizer
) -> None:
    task = official(tmp_path, row(**more))
    with pytest.raises(UsageError, match=said):
        list(task.samples(words, ctx, 1, 42))


def test_a_missing_file_is_named_with_what_gets_it(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="kleval data fetch longbench_pro"):
        load_task("longbench_pro/chinese", edition="official", data_dir=tmp_path)


def test_five_questions_of_each_kind_are_counted_where_a_document_can_fit() -> None:
    usual, thinking = (make_task("longbench_pro/english", "official", protocol).counts() for protocol in PROTOCOLS)  # type: ignore[attr-defined]
    assert usual.rows == thinking.rows == 5 * len(KINDS)
    for counts, most in ((usual, 1024), (thinking, 8192)):
        assert counts.written == (most,)
        assert list(counts.only) == [tokens for tokens in LENGTHS.values() if 0.8 * tokens + most <= tokens]
        assert counts.at(131072) == [(115, 131072 - most)]
