"""Examples and label numbers are those of the official random states."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kleval.tasks.helmet_icl.official import (
    TEST_ITEMS,
    Item,
    Pool,
    chosen_items,
    example,
    item_seed,
    label_numbers,
    permutation,
    split,
    user_message,
)


@pytest.mark.parametrize("case", range(4))
def test_prompts_and_answers_equal_the_official_ones(golden: dict[str, Any], case: int) -> None:
    expected = golden["load_icl"][case]
    arguments = expected["arguments"]
    shots = int(arguments["dataset"].split("_")[-2].removesuffix("shot"))
    pool = Pool.of([Item(*row) for row in golden["data"]["train"]])
    test = chosen_items(
        [Item(*row) for row in golden["data"]["test"]], arguments["seed"], arguments["max_test_sample"] or TEST_ITEMS
    )
    assert [item.text for item in test] == expected["test_order"]
    numbers = [
        label_numbers(expected["num_labels_in_random_map"], item_seed(item.text, arguments["seed"])) for item in test
    ]
    assert [str(n[item.label]) for n, item in zip(numbers, test, strict=True)] == expected["answers"]
    for row in expected["items"]:
        item, own = test[row["index"]], numbers[row["index"]]
        shown = pool.balanced(shots, item_seed(item.text, arguments["seed"]))
        message = user_message("\n\n".join(example(one.text, own[one.label]) for one in shown), item.text)
        assert message == row["user_message"]
        assert f"{message}\nlabel:" == row["prompt"]


def test_label_numbers_equal_official_values() -> None:
    def number(text: str, n_labels: int, label: int) -> int:
        return label_numbers(n_labels, item_seed(text, 42))[label]

    assert number("when does the pear row open on the ninth", 77, 0) == 12
    assert number("when does the pear row open on the ninth", 50, 0) == 31
    assert number("is it too late to sow leeks on friday", 77, 5) == 3


def test_a_shuffle_is_that_of_the_package_datasets() -> None:
    assert permutation(10, 42) == [5, 6, 0, 7, 3, 2, 4, 9, 1, 8]  # numpy.random.default_rng(42).permutation(10)


pools = st.lists(st.integers(0, 5), min_size=1, max_size=40).map(
    lambda labels: Pool.of([Item(f"text {i}", label) for i, label in enumerate(labels)])
)


@settings(max_examples=60, deadline=None)
@given(pools, st.integers(1, 90), st.integers(0, 2**31 - 1))
def test_examples_are_balanced_and_no_text_repeats_before_its_label_is_used_up(pool: Pool, n: int, seed: int) -> None:
    drawn = pool.balanced(n, seed)
    assert len(drawn) == n
    of_labels = Counter(item.label for item in drawn)
    assert max(of_labels.values()) - min(of_labels[label] for label in pool.by_label) <= 1
    for label, positions in pool.by_label.items():
        texts = Counter(item.text for item in drawn if item.label == label)
        assert not texts or max(texts.values()) <= -(-of_labels[label] // len(positions)) + 1


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 300), st.integers(0, 2**31 - 1))
def test_label_numbers_are_a_permutation(n: int, seed: int) -> None:
    assert sorted(label_numbers(n, seed)) == list(range(n))


def test_data_without_a_split_are_parted_nine_to_one() -> None:
    items = [Item(str(i), 0) for i in range(101)]
    train, test = split(items, 42)
    assert (len(train), len(test)) == (90, 11)
    assert {*train, *test} == set(items)


def test_five_hundred_test_items_are_balanced_over_labels() -> None:
    items = [Item(str(i), i % 7 if i < 1000 else 0) for i in range(2000)]
    chosen = chosen_items(items, 42)
    assert len(chosen) == len(set(chosen)) == TEST_ITEMS
    counts = Counter(item.label for item in chosen).values()
    assert max(counts) - min(counts) <= 1
    assert chosen_items(items[:TEST_ITEMS], 42) == tuple(items[:TEST_ITEMS])
