"""Shards joined: what belongs together, what is missing, and that the whole is what it would have been."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from harness_fakes import TASKS, EchoBackend, OneCall, comparable, failing, go

from kleval.harness.merging import command, merge
from kleval.store import RunStore
from kleval.store.places import Records
from kleval.types import Unfit, UsageError


class Gappy(OneCall):
    """Every third of its samples does not fit, and its data end early."""

    def samples(self, tokenizer, ctx, n, seed):
        made = 0
        for sample in super().samples(tokenizer, ctx, 7, seed):
            fits = sample.index % 3 != 1
            yield sample if fits else Unfit(sample.index, f"row {sample.index} is long", 90 - sample.index)
            made += fits
            if made == n:
                return


DIFFERENT = ("name", "uid", "started", "finished", "sessions", "spec", "hardware")


def shards(folder, n, numbers=None, **changes):
    paths = []
    for i in numbers or range(1, n + 1):
        paths.append(folder / f"{i}")
        go(paths[-1], shard=f"{i}/{n}", **changes)
    return paths


def facts(store):
    return {name: value for name, value in store.manifest.items() if name not in DIFFERENT}


def test_eight_shards_merged_are_the_unsharded_run(tmp_path) -> None:
    tasks = (*TASKS, OneCall(id="fake/long", minimum_tokens=20))
    go(tmp_path / "whole", tasks=tasks, repeats=2, command="kleval run --limit 5 --out whole")
    found = merge(shards(tmp_path / "s", 8, tasks=tasks, repeats=2), tmp_path / "m")
    merged, whole = RunStore.open(tmp_path / "m"), RunStore.open(tmp_path / "whole")
    assert comparable(merged) == comparable(whole)
    assert facts(merged) == {**facts(whole), "merged": merged.manifest["merged"]}
    assert [merged.read_prompt(row) for row in merged.rows()] == [whole.read_prompt(row) for row in whole.rows()]
    assert found.counts == whole.manifest["counts"]
    assert not found.missing


def test_a_merged_run_goes_on_without_shards(tmp_path) -> None:
    paths = shards(tmp_path, 3, numbers=(1, 3))
    found = merge(paths, tmp_path / "m")
    assert [line.split(",")[0] for line in found.missing] == ["shard 2/3 is not there"]
    assert found.counts["planned"] == 30
    assert RunStore.open(tmp_path / "m").status == "incomplete"
    asked = EchoBackend()
    assert go(tmp_path / "m", asked).status == "complete"
    go(tmp_path / "whole")
    assert comparable(RunStore.open(tmp_path / "m")) == comparable(RunStore.open(tmp_path / "whole"))
    assert sum(map(len, asked.batches)) < 30


def test_merging_again_adds_what_has_come_since(tmp_path) -> None:
    paths = shards(tmp_path / "s", 2, max_requests=4)
    found = merge(paths, tmp_path / "m")
    assert len(found.missing) == 2
    assert "lacks" in found.missing[0]
    assert str(paths[0]) in found.missing[0]
    shards(tmp_path / "s", 2)
    found = merge([tmp_path / "s"], tmp_path / "m")
    assert not found.missing
    assert found.added < 30
    store = RunStore.open(tmp_path / "m")
    assert store.status == "complete"
    assert len(store.manifest["sessions"]) == 4
    assert merge([tmp_path / "s"], tmp_path / "m").added == 0
    go(tmp_path / "whole")
    assert comparable(store) == comparable(RunStore.open(tmp_path / "whole"))


def test_answers_that_failed_are_missing_until_their_shard_has_them(tmp_path) -> None:
    broken = EchoBackend(fault=failing(0.4))
    for i in (1, 2):
        go(tmp_path / f"{i}", broken, shard=f"{i}/2", retries=0)
    found = merge([tmp_path / "1", tmp_path / "2"], tmp_path / "m")
    assert len(found.missing) == 2
    assert found.counts["failed"]
    shards(tmp_path, 2)
    assert merge([tmp_path / "1", tmp_path / "2"], tmp_path / "m").counts["failed"] == 0


def test_rows_that_a_complete_shard_has_lost_are_missing(tmp_path) -> None:
    a, b = shards(tmp_path / "s", 2)
    shutil.rmtree(b / "samples")
    found = merge([a, b], tmp_path / "m")
    assert (found.counts["finished"], found.counts["planned"]) == (15, 30)
    assert [line.partition(" (")[0] for line in found.missing] == ["shard 2/2 lacks 15 of 15 answers"]
    assert RunStore.open(tmp_path / "m").status == "incomplete"
    shards(tmp_path / "s", 2, numbers=(2,))
    assert not merge([a, b], tmp_path / "m").missing
    assert RunStore.open(tmp_path / "m").status == "complete"


@pytest.mark.parametrize(
    "broken",
    [
        {"shards": None},
        {"shards": [15]},
        {"shards": "xy"},
        {"counts": {}},
        {"counts": {"planned": None}},
        {"shard": "2/x"},
    ],
)
def test_a_shard_whose_manifest_is_damaged_is_one_line(tmp_path, broken) -> None:
    a, b = shards(tmp_path / "s", 2)
    manifest = json.loads((b / "run.json").read_text())
    if "shard" in broken:
        broken = {"settings": manifest["settings"] | broken}
    (b / "run.json").write_text(json.dumps(manifest | broken))
    with pytest.raises(UsageError, match=r"2/run\.json is damaged .* restore it"):
        merge([a, b], tmp_path / "m")
    assert not (tmp_path / "m").exists()


def test_skips_of_shards_are_those_of_the_run(tmp_path) -> None:
    tasks = (OneCall(), OneCall(id="fake/big", minimum_tokens=20))
    merge(shards(tmp_path / "s", 3, tasks=tasks), tmp_path / "m")
    go(tmp_path / "whole", tasks=tasks)
    assert RunStore.open(tmp_path / "m").manifest["skips"] == RunStore.open(tmp_path / "whole").manifest["skips"] != []


def test_samples_that_do_not_fit_are_counted_as_in_the_run(tmp_path) -> None:
    merge(shards(tmp_path / "s", 3, tasks=(Gappy(),)), tmp_path / "m")
    go(tmp_path / "whole", tasks=(Gappy(),))
    merged, whole = RunStore.open(tmp_path / "m"), RunStore.open(tmp_path / "whole")
    assert merged.manifest["skips"] == whole.manifest["skips"] != []
    assert merged.manifest["counts"] == whole.manifest["counts"]
    assert comparable(merged) == comparable(whole)


def test_prompts_are_stored_once(tmp_path) -> None:
    paths = shards(tmp_path / "s", 2)
    for _ in range(2):
        merge(paths, tmp_path / "m")
    sizes = [sum(file.stat().st_size for file in (path / "prompts").glob("*.gz")) for path in (*paths, tmp_path / "m")]
    assert sizes[2] == sizes[0] + sizes[1]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"limit": 6}, "limit: 5 -> 6"),
        ({"seed": 7}, "seed: 42 -> 7"),
        ({"shard": "2/3"}, "shard: 1/2 -> 2/3"),
        ({"shard": "1/2"}, "both shard 1/2"),
        ({"shard": None}, "is no shard"),
        ({"tasks": TASKS[:2]}, "tasks: "),
    ],
)
def test_what_does_not_belong_together_is_refused(tmp_path, changes, said) -> None:
    go(tmp_path / "a", shard="1/2")
    go(tmp_path / "b", **{"shard": "2/2", **changes})
    with pytest.raises(UsageError, match=said) as error:
        merge([tmp_path / "a", tmp_path / "b"], tmp_path / "m")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "m").exists()


def test_a_sample_that_two_shards_have_is_refused_before_anything_is_written(tmp_path) -> None:
    a, b = shards(tmp_path / "s", 2)
    shutil.rmtree(b / "samples")
    shutil.copytree(a / "samples", b / "samples")
    with pytest.raises(UsageError, match=r"both have .* they are not of one run"):
        merge([a, b], tmp_path / "m")
    assert not (tmp_path / "m").exists()


def test_an_index_is_made_of_the_whole_alone(tmp_path, monkeypatch) -> None:
    """It takes 600 bytes a row: with the shards' beside it a million rows would not stay under 1 GB."""
    paths, folders, refresh = shards(tmp_path / "s", 3), set(), Records.refresh

    def told(records: Records) -> None:
        folders.add(records.folder)
        refresh(records)

    monkeypatch.setattr(Records, "refresh", told)
    merge(paths, tmp_path / "m")
    assert folders == {tmp_path / "m"}


def test_a_place_that_is_taken_is_refused(tmp_path) -> None:
    paths = shards(tmp_path / "s", 2, tasks=TASKS[:1])
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").touch()
    with pytest.raises(UsageError, match="not empty"):
        merge(paths, tmp_path / "full")
    go(tmp_path / "other", limit=2, tasks=TASKS[:1])
    with pytest.raises(UsageError, match="limit: 2 -> 5"):
        merge(paths, tmp_path / "other")
    with pytest.raises(UsageError, match="shard: 2/2 ->"):
        merge([paths[0]], paths[1])
    merge(paths, tmp_path / "m")
    with RunStore.reopen(tmp_path / "m"), pytest.raises(UsageError, match="in use"):
        merge(paths, tmp_path / "m")
    with RunStore.reopen(paths[0]) as writer:
        writer.update(status="running")
        with pytest.raises(UsageError, match="in use"):
            merge(paths, tmp_path / "n")


def test_a_command_is_told_for_another_shard() -> None:
    line = "kleval run --model m --shard auto --out=runs/a --limit 3"
    assert command(line, "3/8", Path("b c")) == "kleval run --model m --limit 3 --shard 3/8 --out 'b c'"
    assert command(line, None, None) == "kleval run --model m --limit 3"


def test_a_merged_directory_below_the_shards_is_no_shard_wherever_its_copy_lies(tmp_path):
    shards(tmp_path / "long", 2)
    out = tmp_path / "out"
    merge([tmp_path / "long"], out)
    shutil.copytree(out, tmp_path / "long" / "copy of out")
    assert merge([tmp_path / "long"], out).added == 0


def test_what_is_missing_of_a_run_without_a_command_line_is_a_call():
    assert command("", "2/2", Path("DIR")) == "the same call of kleval.evaluate with shard='2/2' and out='DIR'"
    assert command("", None, None) == "the same call of kleval.evaluate with no shard"
