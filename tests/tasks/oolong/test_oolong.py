"""OOLONG: scores as the official code has them, windows of kleval's own that are counted anew here, the published rows as a loader."""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kleval.tasks.draws import own_draws
from kleval.tasks.oolong import made
from kleval.tasks.oolong import task as scoring
from kleval.tasks.registry import load_task
from kleval.types import Completion, ContextTooSmall, Sample, Tokenizer, Unfit, UsageError

GOLDEN: dict[str, Any] = json.loads(Path(__file__).with_name("golden.json").read_text("utf-8"))


def asked(name: str, tokenizer: Tokenizer, ctx: int, n: int, **more: Any) -> tuple[Any, list[Any]]:
    task: Any = load_task(f"oolong/{name}", **more)
    return task, list(task.samples(tokenizer, ctx, n, 42))


def score(task: Any, sample: Sample, text: str) -> dict[str, float]:
    return dict(task.score(sample, Completion(text, 1, 1)).metrics)


def test_scores_of_synth_equal_the_official_ones() -> None:
    def ours(gold: str, kind: str, answer: str) -> float:
        return scoring.synth_score(scoring.synth_extract(answer), scoring.synth_gold(gold), kind)

    assert len(GOLDEN["synth"]) == 111
    assert [case for case in GOLDEN["synth"] if ours(*case[:3]) != pytest.approx(case[3])] == []


def test_scores_of_real_equal_the_official_ones() -> None:
    assert len(GOLDEN["real"]) == 73
    for gold, answer, parsed, value in GOLDEN["real"]:
        found = scoring.real_extract(answer)
        assert found == parsed
        assert scoring.real_score(found, scoring.real_parsed(gold)) == pytest.approx(value)


@pytest.mark.parametrize(
    "text", ["February 2023", "3 February", "Friday", "2023", "10:07", "today", "2023-02-03T00:00:00+01:00"]
)
def test_a_date_that_leaves_something_out_is_none(text: str) -> None:
    assert scoring.synth_score(text, scoring.synth_gold("[datetime.date(2023, 2, 3)]"), scoring.DATE) == 0


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=60))
def test_every_answer_has_a_score(text: str) -> None:
    for gold, kind in (("[7]", scoring.NUMERIC), ("['spam']", ""), ("[datetime.date(2023, 2, 3)]", scoring.DATE)):
        assert 0 <= scoring.synth_score(scoring.synth_extract(text), scoring.synth_gold(gold), kind) <= 1
    for gold in ("7", "a, b", "a"):
        assert 0 <= scoring.real_score(scoring.real_extract(text), scoring.real_parsed(gold)) <= 1


@pytest.mark.parametrize("name", ["synth", "real"])
def test_an_oracle_gets_full_marks_and_ctx_is_nearly_filled(name: str, words: Tokenizer) -> None:
    task, samples = asked(name, words, 1200, 12)
    for sample in samples:
        right = score(task, sample, sample.references[0])
        assert (right["score"], right["exact"], right[f"score {sample.meta['group']}"]) == (1, 1, 1)
        assert score(task, sample, "I do not know.")["score"] == 0
        assert sample.prompt_tokens == words.count(words.render(sample.prompt))
        assert 1100 < sample.prompt_tokens + sample.max_new_tokens <= 1200
        assert words.count(sample.references[0]) <= sample.max_new_tokens
    assert len({sample.meta["question"] for sample in samples}) > 4


@pytest.mark.parametrize("name", ["synth", "real"])
def test_a_sample_does_not_depend_on_those_before_it(name: str, words: Tokenizer) -> None:
    task, samples = asked(name, words, 900, 4)
    assert list(task.samples_at(words, 900, [3], 42)) == samples[3:]


def test_answers_about_messages_follow_from_their_lines() -> None:
    messages, seen = made.BANK["synth"]["messages"], set()
    topics = {
        re.sub(r"\\\{\w+\\\}", r"\\w+", re.escape(form)): topic for topic, forms in messages.items() for form in forms
    }
    assert len(topics) == sum(map(len, messages.values()))
    for i in range(40):
        window = made.Messages(own_draws("messages", i).rng)
        lines = list(islice(window.lines(), 25))
        found: list[tuple[datetime, str, str]] = []
        for line in lines[:20]:
            day, user, text = re.fullmatch(r"Date: (.+) \|\| User: (\d+) \|\| Instance: (.+)\n", line).groups()  # type: ignore[union-attr]
            (topic,) = {topic for form, topic in topics.items() if re.fullmatch(form, text)}
            found.append((datetime.strptime(day, "%b %d, %Y"), user, topic))
        told = window.ask(20, random.Random(i))
        said, question = told.said.partition(": ")[2], told.question
        named = re.findall(r"'(\w+)'", question.partition(" Give your")[0])
        theirs = [one for one in found if not named or one[2] == named[0]]
        if m := re.search(r"user (\d+)", question):
            theirs = [one for one in theirs if one[1] == m[1]]
        if m := re.search(r"after (.+?)\? Give", question):
            theirs = [one for one in theirs if one[0] > datetime.strptime(m[1], "%b %d, %Y")]
        if len(named) == 2:
            counts = [sum(one[2] == name for one in found) for name in named]
            right = {1: "more common than", 0: "same frequency as", -1: "less common than"}[
                (counts[0] > counts[1]) - (counts[0] < counts[1])
            ]
        elif question.startswith("How many"):
            right = str(len(theirs))
        elif question.startswith("On which day"):
            right = f"{min(theirs)[0]:%Y-%m-%d}"
        else:
            counted = Counter(one[1] if "Which user" in question else one[2] for one in theirs)
            sign = -1 if "least" in question else 1
            every = set(made.LABELS) if sign < 0 else set(counted)
            best = max(sign * counted[one] for one in every)
            (right,) = {one for one in every if sign * counted[one] == best}
        assert said == right
        seen.add(re.sub(r"'\w+'|\d+|\w{3} \d\d, ", "", question)[:40])
    assert len(seen) >= 8


def test_answers_about_a_game_follow_from_its_lines() -> None:
    seen, spells = set(), "|".join(made.BANK["real"]["spells"])
    for i in range(40):
        window = made.Transcript(own_draws("game", i).rng)
        text = window.text("".join(islice(window.lines(), 40)), 40)
        rolls = re.findall(r"(\w+): (?:I roll for|My|Rolling) (\w+)[^\d\n]*(\d+)", text)
        cast = re.findall(rf"(\w+): .*I cast ({spells})", text)
        told = window.ask(40, random.Random(i))
        who = re.search("|".join(made.BANK["real"]["players"]), told.question)
        kind = re.search(r"rolls for (\w+)", told.question)
        counts = Counter(roll[1] for roll in rolls)
        right: dict[str, object] = {
            "How many rolls": sum(
                (not who or roll[0] == who[0]) and (not kind or roll[1] == kind[1]) for roll in rolls
            ),
            "How many dice": sum(roll[2] == "20" for roll in rolls),
            "How many spells": sum(not who or one[0] == who[0] for one in cast),
            "Which spell is": cast[-1][1],
            "Which are the": ", ".join(one[1] for one in cast[:2]),
            "Which kind of": ", ".join(one for one in counts if counts[one] == max(counts.values())),
        }
        (begins,) = (one for one in right if told.question.startswith(one))
        assert told.gold == str(right[begins])
        seen.add(begins)
    assert len(seen) == 6


def test_a_context_that_is_too_short_names_one_that_is_not(words: Tokenizer) -> None:
    with pytest.raises(ContextTooSmall) as raised:
        asked("synth", words, 100, 1)
    assert asked("synth", words, raised.value.minimum_tokens, 1)[1]


def synth_row(length: int, n: int, answer: str = "['ham']", kind: str = "ANSWER_TYPE.LABEL") -> dict[str, Any]:
    window = {"context_len": length, "context_window_text": "word " * n, "context_window_text_with_labels": "not asked"}
    return {
        **window,
        "question": "Which?",
        "answer": answer,
        "answer_type": kind,
        "task_group": "counting",
        "dataset": "spam",
    }


@pytest.fixture
def published(tmp_path: Path) -> Path:
    rows = [
        synth_row(1024, 700),
        synth_row(2048, 900),
        synth_row(2048, 9000),
        synth_row(2048, 9, "[datetime.date(2023, 2, 3)]", scoring.DATE),
    ]
    real = {
        "context_window_text": "word " * 50,
        "question": "How many?",
        "answer": 7,
        "question_type": "singledoc_rolls",
        "episodes": [3],
    }
    for name, some in (
        ("data/test-00000-of-00001.jsonl", rows),
        ("dnd/test.jsonl", [real, {**real, "answer": "a, b"}]),
    ):
        path = tmp_path / "oolong" / name
        path.parent.mkdir(parents=True)
        path.write_text("".join(json.dumps(row) + "\n" for row in some))
    return tmp_path


def test_official_windows_are_those_of_the_longest_length_of_at_most_ctx(published: Path, words: Tokenizer) -> None:
    task, (sample,) = asked("synth", words, 2047, 5, edition="official", data_dir=published)
    assert (sample.meta["length"], sample.max_new_tokens, sample.references) == ("1k", 1024, ("Answer: ham",))
    assert [message["role"] for message in sample.prompt] == ["system", "user"]
    assert sample.prompt[0]["content"].startswith("You are a helpful assistant.\nword word")
    assert score(task, sample, "Label: ham") == {"score": 1, "exact": 1, "score counting": 1, "score 1k": 1}
    task, (first, unfit, dated) = asked("synth", words, 2048, 5, edition="official", data_dir=published)
    assert (first.meta["length"], type(unfit)) == ("2k", Unfit)
    assert score(task, dated, dated.references[0])["score"] == score(task, dated, "Date: Feb 3, 2023")["score"] == 1


def test_official_transcripts_are_asked_as_far_as_they_fit(published: Path, words: Tokenizer) -> None:
    task, (number, several) = asked("real", words, 1200, 5, edition="official", data_dir=published)
    assert score(task, number, r"So \boxed{8}") == {"score": 0.75, "exact": 0, "score singledoc_rolls": 0.75}
    assert score(task, several, several.references[0])["score"] == 1
    assert score(task, several, r"\boxed{b, c}")["score"] == 0.5


@pytest.mark.parametrize(
    ("ctx", "change", "said"),
    [
        (4096, {}, "asks windows of 4k, of which"),
        (1024, {"answer": "ham"}, "row 0: field 'answer' cannot be read"),
        (1024, {"question": None}, "field 'question' must be a text"),
        (1000, {}, "no window below 1k"),
    ],
)
def test_rows_that_cannot_be_asked_are_told(
    ctx: int, change: dict[str, Any], said: str, tmp_path: Path, words: Tokenizer
) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "test.jsonl").write_text(2 * (json.dumps({**synth_row(1024, 9), **change}) + "\n"))
    with pytest.raises(UsageError, match=said):
        asked("synth", words, ctx, 1, edition="official", data_dir=tmp_path)


def test_files_that_are_not_here_are_named_with_what_gets_them(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/test-00000-of-00002.parquet").touch()  # half of the parts is none of the data
    for name, file in (("synth", r"data/test-\*\.parquet"), ("real", r"dnd/test\.jsonl")):
        with pytest.raises(UsageError, match=f"needs {file}, which is not in .*kleval data fetch oolong"):
            load_task(f"oolong/{name}", edition="official", data_dir=tmp_path)


def test_the_question_alone_has_no_window(words: Tokenizer) -> None:
    (sample,) = asked("synth", words, 900, 1, protocol="likelihood")[1]
    alone = sample.meta["question_alone"]
    assert [message["content"] for message in alone] == ["You are a helpful assistant.", sample.meta["question"]]
