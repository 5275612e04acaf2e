"""Parts of a cell: every sample in one, and made alone it is the sample that it is among the others."""

from __future__ import annotations

from itertools import chain

import pytest

from kleval.harness.parts import Part
from kleval.models.registry import load_model_tokenizer
from kleval.tasks.registry import load_task
from kleval.types import Sample, Unfit

MADE_ALONE = (
    *("ruler/niah_multikey_1", "ruler/qa_2", "mrcr/2needle", "longbench2/mcq", "helmet_icl/banking77", "frames/oracle"),
    *("lca/lib", "lca/commit", "synthetic/mqar", pytest.param("repoqa/snf", marks=pytest.mark.slow)),
)


@pytest.mark.parametrize("block", [1, 3])
@pytest.mark.parametrize("of", [1, 2, 5])
def test_each_position_is_in_one_part(of: int, block: int) -> None:
    parts = [Part(place, of, block).positions(20) for place in range(of)]
    assert sorted(chain(*parts)) == list(range(20))
    assert max(map(len, parts)) - min(map(len, parts)) <= block


def test_what_is_passed_over_is_in_one_part() -> None:
    made = [Unfit(0, "", 9), *_samples(1, 2), Unfit(3, "", 9), *_samples(4), Unfit(5, "", 9)]  # where the data end
    for n in (2, 3, 8):
        whole = list(Part(0, 1).taken(iter(made), n))
        dealt = [list(Part(place, 3).taken(iter(made), n)) for place in range(3)]
        assert sorted(one.index for one in chain(*dealt)) == sorted(one.index for one in whole)


@pytest.mark.parametrize("task_id", MADE_ALONE)
def test_a_sample_made_alone_is_the_one_among_the_others(task_id: str) -> None:
    task, tokenizer = load_task(task_id), load_model_tokenizer("kimi-linear")
    whole = list(task.samples(tokenizer, 1024, 3, 7))
    assert list(load_task(task_id).samples_at(tokenizer, 1024, [0, 2], 7)) == [whole[0], whole[2]]


def _samples(*indices: int) -> list[Sample]:
    return [Sample(f"s{i}", "t", 8, i, "p", (), 1, 1) for i in indices]
