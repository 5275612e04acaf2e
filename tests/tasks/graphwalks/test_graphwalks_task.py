"""GraphWalks: what is asked is what another solver finds in the prompt, and official rows are passed on as they are."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kleval.tasks.graphwalks import graphs
from kleval.tasks.graphwalks.grading import extract
from kleval.tasks.graphwalks.task import FILES, MOST_NODES, OFFICIAL_BUDGET, GraphWalksTask
from kleval.tasks.registry import load_task
from kleval.tokenization import load_tokenizer
from kleval.types import Completion, ContextTooSmall, Sample, Unfit, UsageError

from .conftest import Write, row

NANO = load_tokenizer("nano-2")
KINDS = ("bfs", "parents")
EXAMPLE = ["uvwx -> alke\n", "abcd -> uvwx\n", "abcd -> efgh\n", "efgh -> uvwx\n"]


def task(kind: str) -> GraphWalksTask:
    loaded = load_task(f"graphwalks/{kind}")
    assert isinstance(loaded, GraphWalksTask)
    return loaded


def made(kind: str, ctx: int, n: int = 1, seed: int = 42) -> list[Sample]:
    return [one for one in task(kind).samples(NANO, ctx, n, seed) if isinstance(one, Sample)]


def solved(prompt: str) -> set[str]:
    """From the prompt's text alone, distances by as many passes over all edges."""
    graph, _, question = prompt.rpartition("Here is the graph to operate on:")[2].partition("\n\nOperation:")
    edges = re.findall(r"^(\w+) -> (\w+)$", graph, re.MULTILINE)
    if parents := re.search(r"Find the parents of node (\w+)\.", question):
        return {one for one, other in edges if other == parents[1]} - {parents[1]}
    search = re.search(r"BFS from node (\w+) and return only the nodes at exactly depth (\d+)", question)
    assert search
    far = {search[1]: 0}
    for step in range(int(search[2])):
        far |= {b: step + 1 for a, b in edges if far.get(a) == step and b not in far}
    return {node for node, distance in far.items() if distance == int(search[2])}


@pytest.mark.parametrize(
    ("kind", "start", "nodes"),
    [
        ("bfs", "abcd", ("uvwx", "efgh")),
        ("bfs", "alke", ()),
        ("parents", "uvwx", ("abcd", "efgh")),
        ("parents", "abcd", ()),
    ],
)
def test_the_prompt_s_own_examples_come_out_as_it_has_them(kind, start, nodes):
    ends = [line.split()[::2] for line in EXAMPLE]
    after: dict[str, list[str]] = {}
    for one, other in ends if kind == "bfs" else (pair[::-1] for pair in ends):
        after.setdefault(one, []).append(other)
    assert graphs.at_depth(after, start, 1) == nodes


def test_nodes_are_called_as_in_the_official_rows():
    assert [graphs.name(i) for i in range(3)] == ["cfcd208495", "c4ca4238a0", "c81e728d9d"]


def test_a_row_s_prompt_is_as_long_as_openai_says():
    """2,638 characters with 44 edges before 2026-02-27; since then its wording for depths takes 56 more."""
    prompt = graphs.message(
        ["cfcd208495 -> cfcd208495\n"] * 44, graphs.PROMPT["parents"].format(node="8f14e45fce", depth=1)
    )
    assert len(prompt) in range(2638 - 1 + 56, 2638 + 56 + 1)  # white space at the end of one line is not known


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=5, deadline=None)
@given(ctx=st.integers(1400, 2600), seed=st.integers(0, 1000))
def test_the_reference_follows_from_the_prompt_and_fits_with_it(kind, ctx, seed):
    for sample in made(kind, ctx, 2, seed):
        assert set(extract(sample.references[0]) or ()) == solved(str(sample.prompt))
        assert sample.meta["nodes"] <= MOST_NODES[kind]
        assert sample.prompt_tokens == NANO.count(NANO.render(sample.prompt))
        assert sample.prompt_tokens + sample.max_new_tokens <= ctx
        assert NANO.count(sample.references[0]) <= sample.max_new_tokens


@pytest.mark.parametrize("kind", KINDS)
def test_a_sample_does_not_depend_on_those_before_it(kind):
    wanted = made(kind, 1500, 3)[2]
    assert list(task(kind).samples_at(NANO, 1500, [2], 42) or ()) == [wanted]


@pytest.mark.parametrize("kind", KINDS)
def test_some_operations_result_in_nothing_and_some_in_several_nodes(kind):
    found = [sample.meta["nodes"] for sample in made(kind, 2048, 12)]
    assert min(found) == 0
    assert max(found) > 1


def test_longer_contexts_hold_more():
    short, long = (made("bfs", ctx)[0].meta["edges"] for ctx in (2048, 8192))
    assert long > 4 * short


def test_too_little_room_says_how_much_it_takes():
    with pytest.raises(ContextTooSmall) as told:
        made("parents", 900)
    assert made("parents", told.value.minimum_tokens + 40)


def test_scores_say_whether_there_is_a_list():
    one, (sample,) = task("parents"), made("parents", 2048)
    assert one.score(sample, Completion(sample.references[0], 0, 0)).metrics == {"f1": 1.0, "exact": 1.0, "parsed": 1.0}
    assert one.score(sample, Completion("None.", 0, 0)).metrics == {"f1": 0.0, "exact": 0.0, "parsed": 0.0}
    assert one.score(sample, Completion("Final Answer: [x]", 0, 0)).metrics == {"f1": 0.0, "exact": 0.0, "parsed": 1.0}


def test_official_rows_of_a_kind_are_passed_on_as_they_are(write_rows: Write, words):
    short = [row("parents", ["a"]), row("bfs", ["b", "c"]), row("parents", [])]
    folder = write_rows(short, [row("bfs", ["d"], 200_000), row("parents", ["e"])])
    one = load_task("graphwalks/parents", "official", data_dir=folder)
    found = [made for made in one.samples(words, 20_000, 9, 0) if isinstance(made, Sample)]
    assert [sample.prompt for sample in found] == [
        short[0]["prompt"],
        short[2]["prompt"],
        row("parents", ["e"])["prompt"],
    ]
    assert [sample.references[0] for sample in found] == ["Final Answer: [a]", "Final Answer: []", "Final Answer: [e]"]
    assert [sample.meta["part"] for sample in found] == [*FILES.values()][:1] * 2 + [*FILES.values()][1:]
    assert found[0].max_new_tokens == OFFICIAL_BUDGET
    assert one.data_revision.startswith("openai/graphwalks, unpinned sha256:")
    score = one.step(found[1], [Completion("Final Answer: []", 0, 0)])
    assert score.metrics["f1 128k and shorter"] == 1.0  # type: ignore[union-attr]


def test_official_rows_that_do_not_fit_are_counted(write_rows: Write, words):
    folder = write_rows([row("bfs", ["a"], 40_000), row("bfs", ["b"])], [row("bfs", ["c"], 3_000_000)])
    one = load_task("graphwalks/bfs", "official", data_dir=folder)
    first, second, third = one.samples(words, 20_000, 9, 0)
    assert isinstance(second, Sample)
    assert isinstance(first, Unfit)
    assert isinstance(third, Unfit)
    assert (first.minimum_tokens > 20_000, third.minimum_tokens > 1_000_000) == (True, True)


@pytest.mark.parametrize(
    ("bad", "said"),
    [({"answer_nodes": "a"}, "must be a list of texts"), ({"prompt": 3}, "'prompt' must be a text")],
)
def test_a_row_that_is_not_what_it_must_be_is_named(write_rows: Write, words, bad, said):
    one = load_task("graphwalks/bfs", "official", data_dir=write_rows([row("bfs", ["a"]) | bad], [row("bfs", [])]))
    with pytest.raises(UsageError, match=f"row 0.*{said}"):
        list(one.samples(words, 20_000, 9, 0))


def test_missing_files_say_what_gets_them(tmp_path):
    with pytest.raises(UsageError, match="kleval data fetch graphwalks"):
        load_task("graphwalks/bfs", "official", data_dir=tmp_path)
