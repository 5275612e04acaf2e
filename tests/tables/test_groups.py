"""Groups of answers as columns: what comparisons and cells ask of them, and what they take."""

from __future__ import annotations

import math
import tracemalloc
from dataclasses import replace

from kleval.store import Row
from kleval.tables.groups import ByPlace, Group, mark

ROW = Row(
    model="m",
    id="a",
    task="fam/a",
    ctx=1024,
    index=0,
    repeat=0,
    edition="builtin",
    protocol="p-1",
    task_version="1",
    data_revision="r",
    data_digest="e" * 64,
    prompt_hash="f" * 64,
    prompt_tokens=2,
    max_new_tokens=3,
    references=("x",),
    metric="acc",
    score=1.0,
    answer_prefix="so:",
    outcomes=({"kind": "generate", "text": "x", "finish_reason": "length", "temperature": 0.5},),
)
FAILED = {"score": None, "outcomes": (), "failure": {"kind": "timeout", "message": "slow"}}


def group(*rows: Row) -> Group:
    found = Group("acc")
    for row in rows:
        found.add(row)
    return found


def test_repeats_of_a_sample_are_together_wherever_they_stand() -> None:
    found = group(ROW, replace(ROW, id="b", score=0.0), replace(ROW, repeat=1, score=0.5))
    assert {sample: [one.score for one in of] for sample, of in found.answers().items()} == {
        "a": [1.0, 0.5],
        "b": [0.0],
    }
    assert found.scores() == {("a", mark("f" * 64)): 0.75, ("b", mark("f" * 64)): 0.0}


def test_an_answer_is_what_its_row_said() -> None:
    asked, failed = (one for of in group(ROW, replace(ROW, id="b", **FAILED)).answers().values() for one in of)
    assert (asked.prompt, asked.text) == (mark("f" * 64), mark("x"))
    assert (asked.max_new_tokens, asked.answer_prefix, asked.cut, asked.failed) == (3, "so:", True, False)
    assert (failed.score, failed.text, failed.cut, failed.failed) == (None, 0, False, True)


def test_a_metric_that_comes_late_or_goes_has_no_value_where_it_was_not() -> None:
    found = group(ROW, replace(ROW, id="b", metrics={"f1": 0.25}), replace(ROW, id="c", score=math.nan))
    assert found.metrics == ["acc", "f1"]
    assert [str(value) for value in found.column("f1")] == ["nan", "0.25", "nan"]
    assert list(found.scores().values()) == [1.0, 1.0]


def test_a_group_without_a_score_says_so() -> None:
    assert group(ROW).scored
    assert not group(replace(ROW, **FAILED)).scored


def test_a_place_is_made_when_it_is_asked_for_and_the_last_one_is_kept() -> None:
    made: list[Group] = []
    places = ByPlace(lambda one: made.append(one) or len(made), {("a", 1): group(ROW), ("b", 1): group()})
    assert ("a", 1) in places
    assert (len(places), made) == (2, [])
    assert [places[at] for at in (("a", 1), ("a", 1), ("b", 1), ("a", 1))] == [1, 1, 2, 3]
    assert places.get(("c", 1)) is None


def test_a_row_is_kept_in_few_bytes_whatever_its_texts_are() -> None:
    n, found = 4000, Group("acc")
    tracemalloc.start()
    for i in range(n):
        text = {**ROW.outcomes[0], "text": f"{i} " + "word " * 200}
        found.add(
            replace(ROW, id=f"fam/a@builtin-1/1024/s42/i{i}", prompt_hash=f"{i:064x}", score=i / n, outcomes=(text,))
        )
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert taken / n < 200
