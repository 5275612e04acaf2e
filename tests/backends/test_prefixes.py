"""Shared prefixes as a tree: nothing is lost, nothing is invented, and what is said to be saved is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kleval.backends.prefixes import Node, plan_prefixes

# Few different tokens and sequences made of a few blocks: many shared beginnings, of all lengths.
BLOCKS = st.lists(st.sampled_from([(1,), (2,), (1, 2, 3), (3,) * 5, (4, 1) * 4]), max_size=8)
SEQUENCES = st.lists(BLOCKS.map(lambda blocks: tuple(t for block in blocks for t in block)), max_size=12)
MIN_TOKENS = st.integers(1, 9)


def walk(forest: Sequence[Node]) -> Iterator[Node]:
    stack = list(forest)
    while stack:
        node = stack.pop()
        yield node
        stack.extend(node.children)


def shared_tokens(forest: Sequence[Node]) -> int:
    """Tokens that need not be prefilled: of each sequence those on its path, less those of every node once."""
    on_paths = sum(map(len, paths(forest).values()))
    return on_paths - sum(len(node.ids) for node in walk(forest))


def paths(forest: Sequence[Node]) -> dict[int, tuple[int, ...]]:
    """Member -> the ids from the root to its node."""
    found: dict[int, tuple[int, ...]] = {}
    stack = [(node, node.ids) for node in forest]
    while stack:
        node, path = stack.pop()
        for member in node.members:
            assert member not in found
            found[member] = path
        stack.extend((child, path + child.ids) for child in node.children)
    return found


@settings(deadline=None, max_examples=150)
@given(SEQUENCES, MIN_TOKENS)
def test_a_sequence_is_its_path_and_its_own_rest(sequences: list[tuple[int, ...]], min_tokens: int) -> None:
    for member, path in paths(plan_prefixes(sequences, min_tokens)).items():
        assert sequences[member][: len(path)] == path


@settings(deadline=None, max_examples=150)
@given(SEQUENCES, MIN_TOKENS)
def test_every_node_is_shared_and_long_enough(sequences: list[tuple[int, ...]], min_tokens: int) -> None:
    for node in walk(plan_prefixes(sequences, min_tokens)):
        assert len(node.ids) >= min_tokens
        assert len(node.members) + len(node.children) > 1


@settings(deadline=None, max_examples=150)
@given(SEQUENCES, MIN_TOKENS)
def test_what_is_saved_is_all_tokens_less_those_still_prefilled(
    sequences: list[tuple[int, ...]], min_tokens: int
) -> None:
    forest = plan_prefixes(sequences, min_tokens)
    depth = {member: len(path) for member, path in paths(forest).items()}
    prefilled = sum(len(node.ids) for node in walk(forest))
    prefilled += sum(len(sequence) - depth.get(i, 0) for i, sequence in enumerate(sequences))
    assert shared_tokens(forest) == sum(map(len, sequences)) - prefilled


@settings(deadline=None, max_examples=100)
@given(SEQUENCES)
def test_with_one_token_as_the_minimum_everything_shared_is_found(sequences: list[tuple[int, ...]]) -> None:
    """What is left to prefill is the number of different beginnings: the edges of a trie."""
    beginnings = {sequence[: i + 1] for sequence in sequences for i in range(len(sequence))}
    saved = shared_tokens(plan_prefixes(sequences, 1))
    assert saved == sum(map(len, sequences)) - len(beginnings)


@settings(deadline=None, max_examples=100)
@given(SEQUENCES, MIN_TOKENS)
def test_no_two_sequences_share_more_than_planned_by_the_minimum(
    sequences: list[tuple[int, ...]], min_tokens: int
) -> None:
    """Whatever two sequences have in common beyond the last node above both is shorter than the minimum."""
    above: dict[int, list[int]] = {}
    stack = [(node, [len(node.ids)]) for node in plan_prefixes(sequences, min_tokens)]
    while stack:
        node, depths = stack.pop()
        above.update(dict.fromkeys(node.members, depths))
        stack.extend((child, [*depths, depths[-1] + len(child.ids)]) for child in node.children)
    for i, one in enumerate(sequences):
        for j, other in enumerate(sequences[:i]):
            differ = [k for k, (a, b) in enumerate(zip(one, other, strict=False)) if a != b]
            common = differ[0] if differ else min(len(one), len(other))
            shared = [depth for depth in above.get(i, []) if depth in above.get(j, []) and depth <= common]
            assert common - max(shared, default=0) < min_tokens


def test_few_shot_block_question_and_choices_are_three_levels() -> None:
    shots, questions = tuple(range(100, 200)), [tuple(range(q, q + 40)) for q in (1000, 2000)]
    sequences = [shots + question + (choice, 7) for question in questions for choice in (1, 2, 3, 4)]
    (root,) = plan_prefixes(sequences)
    assert (root.ids, root.members) == (shots, ())
    assert [child.ids for child in root.children] == questions
    assert [child.members for child in root.children] == [(0, 1, 2, 3), (4, 5, 6, 7)]
    assert shared_tokens((root,)) == 7 * 100 + 2 * 3 * 40


def test_the_same_sequence_twice_leaves_no_rest() -> None:
    (node,) = plan_prefixes([(5,) * 50, (5,) * 50, (6,) * 50])
    assert node == Node((5,) * 50, (), (0, 1))


def test_a_prefix_of_another_is_shared_whole() -> None:
    (node,) = plan_prefixes([(1,) * 60, (1,) * 50])
    assert node == Node((1,) * 50, (), (0, 1))


def test_a_short_fork_goes_with_each_of_the_longer_ones_below_it() -> None:
    start, middle = (1,) * 40, (2,) * 10
    sequences = [start + middle + (k,) * 50 + (i,) for k in (3, 4) for i in (8, 9)] + [(*start, 5)]
    (root,) = plan_prefixes(sequences)
    assert (root.ids, root.members) == (start, (4,))
    assert [child.ids for child in root.children] == [middle + (3,) * 50, middle + (4,) * 50]


def test_nothing_in_common_is_no_tree() -> None:
    assert plan_prefixes([(1,) * 50, (2,) * 50, ()]) == ()
    assert plan_prefixes([]) == ()
    assert shared_tokens(()) == 0


def test_a_million_tokens_and_a_thousand_levels_are_no_recursion() -> None:
    long = (1, 2, 3, 4) * 250_000
    (node,) = plan_prefixes([(*long, 5), (*long, 6)])
    assert len(node.ids) == shared_tokens((node,)) == 1_000_000
    levels = plan_prefixes([(1,) * n for n in range(1500)], min_tokens=1)
    assert len(list(walk(levels))) == 1498  # of 1 to 1498 tokens: the longest is one sequence's own
    assert shared_tokens(levels) == 1499 * 1500 // 2 - 1499


def test_a_minimum_below_one_is_refused() -> None:
    with pytest.raises(ValueError, match="min_tokens"):
        plan_prefixes([(1, 2)], 0)
