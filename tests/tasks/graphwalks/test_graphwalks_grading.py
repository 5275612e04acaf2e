"""GraphWalks' grader against the code of the data card (openai/graphwalks, README of 2026-02-27).

`golden.json` holds what that code makes of an answer: `nodes` and `f1`; `f1_of_these` is its F1 of the list without what its `strip`
leaves before the first node.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kleval.tasks.graphwalks.grading import extract, f1, written

CASES: list[dict[str, Any]] = json.loads(Path(__file__).with_name("golden.json").read_text("utf-8"))
NODES = st.lists(st.text("abcdef0123456789", min_size=1, max_size=10), max_size=6)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['response']!r} for {case['right']}")
def test_answers_are_the_card_s_with_its_first_node_put_right(case):
    found = extract(case["response"])
    assert (found is None) == case["unparsable"]
    assert (found or []) == case["first_put_right"]
    if set(case["first_put_right"]) & set(case["right"]):
        assert f1(found, case["right"]) == pytest.approx(case["f1_of_these"])
    else:  # the card's code says 1 whatever it is
        assert case["f1_of_these"] == 1
        assert f1(found, case["right"]) == (found == case["right"])


@pytest.mark.parametrize(
    ("response", "right", "score"),
    [
        ("Final Answer: []", [], 1.0),
        ("Final Answer: [ ]", [], 1.0),
        ("There is none.", [], 0.0),
        ("", [], 0.0),
        ("Final Answer: [a]", [], 0.0),
        ("Final Answer: []", ["a"], 0.0),
        ("Final Answer: [b]", ["a"], 0.0),
        ("There is none.", ["a"], 0.0),
        ("Final Answer: [a]", ["a"], 1.0),
        ("Final Answer: [a, b]", ["a"], 2 / 3),
        ("Final Answer: [a, b]\nDone.", ["a", "b"], 0.0),
    ],
)
def test_nothing_right_is_nothing_and_only_an_empty_list_is_an_empty_set(response, right, score):
    assert f1(extract(response), right) == pytest.approx(score)


@settings(max_examples=40, deadline=None)
@given(NODES, NODES)
def test_f1_is_of_sets_and_symmetric(found, right):
    value = f1(found, right)
    assert value == f1([*found, *found], right[::-1]) == pytest.approx(f1(right, found))
    assert (value == 1) == (set(found) == set(right))


@settings(max_examples=40, deadline=None)
@given(NODES)
def test_what_is_written_is_read(nodes):
    assert extract(written(nodes)) == nodes
