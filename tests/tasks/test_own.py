"""Tasks and metrics out of files, digests of their code, and texts of the user's own."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from kleval.tasks.own.code import digests
from kleval.tasks.own.metric import PLAIN, find_metric, measured
from kleval.tasks.ppl.task import ends
from kleval.tasks.registry import expand, load_task
from kleval.tokenization import load_tokenizer
from kleval.types import Completion, Request, Sample, Score, TextTooShort, UsageError

TASK = """
from kleval.tasks.base import Questions
from kleval.types import Score
from helper import close

PROMPT = "Say {n}."

class Number(Questions):
    id = "echo/number"
    def question(self, draw):
        n = draw.randrange(1000)
        return PROMPT.format(n=n), str(n)
    def score(self, sample, answer):
        return Score({"exact": close(answer.text, sample.references[0])})
"""
HELPER = "LIMIT = 1\n\ndef close(a, b):\n    return float(a[:LIMIT] == b[:LIMIT])\n"
WORDS = load_tokenizer("words")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "my.py").write_text(TASK)
    (tmp_path / "helper.py").write_text(HELPER)
    return tmp_path


def parts(place: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    import sys

    monkeypatch.delitem(sys.modules, "helper", raising=False)
    monkeypatch.syspath_prepend(place)
    return digests(load_task(f"{place}/my.py:Number", "own"))


def test_a_changed_metric_is_told_from_a_changed_prompt_and_from_a_comment(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, scored = parts(place, monkeypatch)
    (place / "my.py").write_text(TASK + "\n# a comment\n")
    assert parts(place, monkeypatch) == (asked, scored)
    (place / "helper.py").write_text(HELPER.replace("LIMIT = 1", "LIMIT = 2"))
    other = parts(place, monkeypatch)
    assert (other[0], other[1] == scored) == (asked, False)
    (place / "helper.py").write_text(HELPER)
    (place / "my.py").write_text(TASK.replace('"Say {n}."', '"Tell {n}."'))
    other = parts(place, monkeypatch)
    assert (other[0] == asked, other[1]) == (False, scored)


def test_kleval_s_own_tasks_have_no_code_of_the_user_s() -> None:
    assert digests(load_task("ruler/niah_single_1")) == ("", "")


def test_questions_fill_a_context_and_are_the_same_again(place: Path) -> None:
    (place / "long.py").write_text(
        TASK.replace('"Say {n}."', '"{{context}} Say {n}."').replace("from helper import close", "")
    )
    task = load_task(f"{place}/long.py:Number", "own")
    made = [list(task.samples(WORDS, 300, 2, 42)) for _ in range(2)]
    assert made[0] == made[1]
    assert all(isinstance(one, Sample) and 280 < one.prompt_tokens + one.max_new_tokens <= 300 for one in made[0])


def form(place: Path, **fields: Any) -> str:
    rows = [{"q": f"{i}+1", "a": str(i + 1), "options": ["1", "2", "3"]} for i in range(3)]
    (place / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    told = {"data": "rows.jsonl", "prompt": 'What is {q}? {"json": {q}}', "answer": "{a}", **fields}
    (place / "my.yaml").write_text(json.dumps(told))  # JSON is YAML
    return str(place / "my.yaml")


def test_a_plain_form_asks_its_rows_and_scores_by_its_metric(tmp_path: Path) -> None:
    task = load_task(form(tmp_path, metric="contains"), "own")
    first, *_ = samples = list(task.samples(WORDS, 64, 9, 42))
    assert (len(samples), first.prompt, first.references) == (3, 'What is 0+1? {"json": 0+1}', ("1",))
    assert task.step(first, [Completion("It is 1.", 1, 1)]).metrics == {"contains": 1.0}


def test_choices_are_compared_by_likelihood(tmp_path: Path) -> None:
    task = load_task(form(tmp_path, choices="options"), "own")
    (sample,) = task.samples(WORDS, 64, 1, 42)
    assert [request.continuation for request in task.step(sample, [])] == ["1", "2", "3"]
    likely = [Completion("", 1, 1, logprob_sum=value) for value in (-1.0, -2.0, -3.0)]
    assert task.step(sample, likely).metrics == {"acc": 1.0}


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"promt": "x"}, "did you mean prompt"),
        ({"prompt": "{nope}"}, "has no field 'nope'"),
        ({"metric": "exakt"}, "did you mean exact"),
        ({"data": "gone.jsonl"}, "is not there"),
        ({"max_new_tokens": "many"}, "max_new_tokens"),
        ({"choices": ["1"]}, "at least 2"),
        ({"choices": ["7", "8"], "answer": "x"}, "neither one of the 2 choices"),
        ({"id": "ruler/vt"}, "give it another id"),
        ({"id": "a b/c"}, "an id is family/task"),
    ],
)
def test_a_wrong_form_is_one_line(tmp_path: Path, fields: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said) as error:
        load_task(form(tmp_path, **fields), "own")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("def f(:", r"SyntaxError: .* \(t.py line 1\)"),
        ("import nosuchmodule", "No module named 'nosuchmodule'"),
        ("class Task: pass", r"it has no samples\(tokenizer, ctx, n, seed\) and no step"),
        ("class Task:\n def __init__(self): raise KeyError('x')", "cannot be made: KeyError"),
        ("class Other: pass", "has no Task: it has Other"),
        ("Task = 3", "is no task"),
        ("class Task:\n def samples(self): pass\n step = samples", "has no metric"),
    ],
)
def test_a_wrong_file_is_one_line(tmp_path: Path, source: str, said: str) -> None:
    (tmp_path / "t.py").write_text(source)
    with pytest.raises(UsageError, match=said) as error:
        load_task(f"{tmp_path}/t.py:Task", "own")
    assert "\n" not in str(error.value)


def test_metrics() -> None:
    sample = Sample("i", "t", 1, 0, "p", ("Paris", "Lutetia"), 1, 1)
    found = {name: measured(name, PLAIN[name], " paris is it ", sample).metrics[name] for name in PLAIN}
    assert (found["exact"], found["contains"], found["f1"]) == (0.0, 1.0, 0.5)
    assert measured("m", lambda a, r, s: {"m": True, "n": None}, "", sample).metrics["m"] == 1.0
    with pytest.raises(UsageError, match="takes 1 argument:"):
        find_metric(lambda answer: 1)


def write(folder: Path, **lengths: int) -> Path:
    folder.mkdir()
    for name, n in lengths.items():
        (folder / f"{name}.txt").write_text(" ".join(f"{name}{i}" for i in range(n)))
    return folder


def test_a_text_is_scored_whole_in_buckets_that_join(tmp_path: Path) -> None:
    task = load_task(f"ppl:{write(tmp_path / 'texts', a=700, b=1300, c=200)}", "own")
    found = list(task.samples(WORDS, 600, 9, 42))
    assert [one.meta["document"] for one in found] == ["a.txt", "b.txt"]
    requests = task.step(found[0], [])
    assert isinstance(requests, list)
    assert all(isinstance(request, Request) for request in requests)
    assert [WORDS.count(request.prompt) for request in requests] == pytest.approx([1, 256, 512], abs=3)
    for one, other in pairwise(requests):
        assert one.prompt + one.continuation == other.prompt
    assert found[0].prompt_tokens <= 600
    answers = [Completion("", 1, 10, logprob_sum=-nats) for nats in (10.0, 20.0, 30.0)]
    score = task.step(found[0], answers)
    assert isinstance(score, Score)
    assert [(b["from"], b["to"], b["nll"]) for b in score.extracted["nll"]] == [
        (0, 256, 1.0),
        (256, 512, 2.0),
        (512, 600, 3.0),
    ]
    assert score.metrics["1/ppl"] == pytest.approx(2.718281828**-2)


def test_one_text_is_cut_into_pieces_and_a_short_one_is_told(tmp_path: Path) -> None:
    folder = write(tmp_path / "texts", book=1000)
    task = load_task(f"ppl:{folder / 'book.txt'}", "own")
    found = list(task.samples(WORDS, 300, 9, 42))
    assert [one.meta["document"] for one in found] == ["book.txt#1", "book.txt#2", "book.txt#3"]
    assert len({str(one.prompt) for one in found}) == 3
    with pytest.raises(TextTooShort, match="the longest has 1000"):
        list(task.samples(WORDS, 4096, 1, 42))
    assert ends(256) == [256]
    assert ends(1000) == [256, 512, 1000]


@pytest.mark.parametrize("task_id", ["ruler/niah_single_1", "ruler/niah_multikey_1", "mrcr/2needle"])
def test_needles_lie_in_the_user_s_documents(tmp_path: Path, task_id: str) -> None:
    folder = write(tmp_path / "texts", walrus=3000)
    task = load_task(task_id, "own", None, folder)
    (sample,) = task.samples(WORDS, 700, 1, 42)
    text = sample.prompt if isinstance(sample.prompt, str) else " ".join(m["content"] for m in sample.prompt)
    assert text.count("walrus") > 200
    assert task.edition == "own"
    assert task.data_digest != load_task(task_id).data_digest
    (folder / "more.txt").write_text("another document")
    from kleval.tasks import texts

    texts.read.cache_clear()
    assert load_task(task_id, "own", None, folder).data_digest != task.data_digest


def test_a_family_is_those_of_its_tasks_that_take_documents() -> None:
    assert len(expand(["ruler", "mrcr"], "own")) == 9
    with pytest.raises(UsageError, match="ruler/cwe has no haystack of prose"):
        expand(["ruler/cwe"], "own")
