"""Shards of a run: parts that make up the whole, known without samples."""

from __future__ import annotations

import pytest
from harness_fakes import TASKS, OneCall, comparable, go

from kleval.harness.plan import PlannedCell
from kleval.harness.shards import deal, named
from kleval.store import RunStore
from kleval.types import UsageError


class Chained(OneCall):
    """Its samples of a length are one stream."""

    together = 0


@pytest.mark.parametrize(
    ("given", "environ", "shard"),
    [
        ("3/8", {}, "3/8"),
        ("auto", {"SLURM_ARRAY_TASK_ID": "7", "SLURM_ARRAY_TASK_MIN": "0", "SLURM_ARRAY_TASK_COUNT": "8"}, "8/8"),
        ("auto", {"SLURM_ARRAY_TASK_ID": "1", "SLURM_ARRAY_TASK_MIN": "1", "SLURM_ARRAY_TASK_COUNT": "4"}, "1/4"),
        (
            "auto",
            {
                "SLURM_ARRAY_TASK_ID": "6",
                "SLURM_ARRAY_TASK_MIN": "2",
                "SLURM_ARRAY_TASK_STEP": "2",
                "SLURM_ARRAY_TASK_COUNT": "3",
            },
            "3/3",
        ),
        ("auto/8", {"JOB_COMPLETION_INDEX": "0"}, "1/8"),
        ("auto/8", {"SLURM_ARRAY_TASK_ID": "3", "SLURM_ARRAY_TASK_COUNT": "1"}, "4/8"),
    ],
)
def test_a_shard_is_known_by_number_or_by_the_variables_of_its_job(
    given: str, environ: dict[str, str], shard: str
) -> None:
    assert named(given, environ) == shard


@pytest.mark.parametrize(
    "given", ["9/8", "0/8", "3", "a/b", "auto", "auto/2", "auto/x", "-1/2", "1/" + "9" * 20, "9" * 5000 + "/8"]
)
def test_what_is_no_shard_is_refused(given: str) -> None:
    with pytest.raises(UsageError, match=r"--shard 3/8"):
        named(given, {"SLURM_ARRAY_TASK_ID": "5"} if given == "auto/2" else {})


def test_shards_are_balanced_at_every_length() -> None:
    tasks = {f"t/{i}": OneCall(id=f"t/{i}") for i in range(5)}
    cells = [PlannedCell("m", task, ctx, 13, 0) for ctx in (1024, 131072) for task in tasks]
    for ctx in (1024, 131072):
        at = [cell for cell in cells if cell.ctx == ctx]
        own = [deal(f"{i}/8", cells, tasks, 13)[0] for i in range(1, 9)]
        counts = [sum(len(parts[cell.id].positions(13)) for cell in at) for parts in own]
        assert sum(counts) == 65
        assert max(counts) - min(counts) <= (1 if ctx == 131072 else 5)


def test_what_belongs_together_is_in_one_shard() -> None:
    tasks = {f"t/{i}": Chained(id=f"t/{i}") for i in range(4)}
    cells = [PlannedCell("m", task, 1024, 10, 0) for task in tasks]
    assert deal("1/2", cells, tasks, 10)[1] == [20, 20]
    assert {len(part.positions(10)) for part in deal("1/2", cells, tasks, 10)[0].values()} == {0, 10}


def test_the_order_of_a_commands_names_does_not_matter() -> None:
    tasks = {f"t/{i}": OneCall(id=f"t/{i}") for i in range(3)}
    cells = [PlannedCell("m", task, ctx, 4, 0) for ctx in (16, 32) for task in tasks]
    assert deal("2/3", cells, tasks, 4) == deal("2/3", cells[::-1], tasks, 4)


def test_shards_have_the_rows_of_the_whole_run(tmp_path) -> None:
    go(tmp_path / "whole", repeats=2)
    found = []
    for i in (1, 2, 3):
        result = go(tmp_path / f"{i}", repeats=2, shard=f"{i}/3")
        assert result.status == "complete"
        store = RunStore.open(tmp_path / f"{i}")
        assert store.manifest["counts"]["planned"] == store.manifest["shards"][i - 1] == len(list(store.rows())) == 20
        found += comparable(store)
    whole = comparable(RunStore.open(tmp_path / "whole"))
    assert sorted(found, key=str) == sorted(whole, key=str)


def test_a_shard_goes_on_where_it_stopped_and_is_no_other(tmp_path) -> None:
    go(tmp_path / "s", shard="2/3", max_requests=3)
    assert go(tmp_path / "s", shard="2/3").counts["finished"] == 10
    with pytest.raises(UsageError, match=r"shard: 2/3 -> 1/3"):
        go(tmp_path / "s", shard="1/3")


def test_more_shards_than_samples_leave_some_with_nothing_to_ask(tmp_path) -> None:
    counts = [go(tmp_path / f"{i}", shard=f"{i}/40", tasks=TASKS[:1]).counts["planned"] for i in (1, 40)]
    assert counts == [1, 0]


def test_what_does_not_fit_is_told_by_one_shard(tmp_path) -> None:
    tasks = (OneCall(minimum_tokens=20),)
    skipped = [go(tmp_path / f"{i}", shard=f"{i}/2", tasks=tasks).counts["skipped"] for i in (1, 2)]
    assert skipped == [5, 0]


def test_data_that_end_early_leave_every_shard_its_part(tmp_path) -> None:
    tasks = (OneCall(n_available=6),)
    counts = [go(tmp_path / f"{i}", shard=f"{i}/3", tasks=tasks, limit=100).counts for i in (1, 2, 3)]
    assert [(one["planned"], one["finished"]) for one in counts] == [(4, 4)] * 3


def test_shards_are_not_amended(tmp_path) -> None:
    with pytest.raises(UsageError, match="merge the shards first"):
        go(tmp_path / "s", shard="1/2", amend=True, tasks=TASKS)
