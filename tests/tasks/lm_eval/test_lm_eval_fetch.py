"""Fetching, from a hub of our own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kleval.tasks import data as assets
from kleval.tasks.lm_eval import fetch, files
from kleval.tasks.registry import load_task
from kleval.types import Tokenizer, UsageError

pytest.importorskip("lm_eval")
datasets = pytest.importorskip("datasets")


class FakeHub(fetch.Hub):
    """head: the newest commit. splits: what a data set has."""

    def __init__(self, head: str = "a" * 40, splits: tuple[str, ...] = ("train", "validation")) -> None:
        self.head, self.names = head, splits
        self.asked: list[tuple[Any, ...]] = []

    def commit(self, path: str, revision: str | None) -> str:
        return revision or self.head

    def splits(self, path: str, config: str | None, revision: str) -> dict[str, Any]:
        self.asked.append((path, config, revision))
        rows = [{"sentence": "a _ b.", "option1": "x", "option2": "y", "answer": "1"} for _ in range(3)]
        return {name: datasets.Dataset.from_list(rows) for name in self.names}


def test_what_was_fetched_is_whole_and_known(tmp_path: Path) -> None:
    hub = FakeHub()
    statuses = fetch.fetch("lm_eval/winogrande", tmp_path, hub=hub)
    assert {(s.name, s.state, s.revision) for s in statuses} == {
        (f"winogrande/winogrande_xl/{split}.parquet", "ok", "a" * 40) for split in ("train", "validation")
    }
    noted = json.loads((tmp_path / "lm_eval" / "winogrande" / files.SOURCE_FILE).read_text())
    assert (noted["repository"], noted["revision"]) == ("allenai/winogrande", "a" * 40)


def test_what_was_fetched_can_be_asked(tmp_path: Path, words: Tokenizer) -> None:
    fetch.fetch("lm_eval/winogrande", tmp_path, hub=FakeHub())
    task = load_task("lm_eval/winogrande", "official", data_dir=tmp_path)
    assert task.data_revision == "allenai/winogrande@aaaaaaaaaaaa (the hub's shape)"
    assert len(list(task.samples(words, 100, 9, 0))) == 3


def test_what_is_there_is_not_fetched_again(tmp_path: Path) -> None:
    fetch.fetch("lm_eval/winogrande", tmp_path, hub=FakeHub())
    again = FakeHub(head="b" * 40)
    fetch.fetch("lm_eval/winogrande", tmp_path, hub=again)
    assert again.asked == []


def test_a_damaged_file_comes_again_from_the_same_commit(tmp_path: Path) -> None:
    fetch.fetch("lm_eval/winogrande", tmp_path, hub=FakeHub())
    broken = tmp_path / "lm_eval" / "winogrande" / "winogrande_xl" / "train.parquet"
    broken.write_bytes(b"x")
    assert {s.state for s in assets.verify("lm_eval/winogrande", tmp_path)} == {"ok", "unrecognised"}
    again = FakeHub(head="b" * 40)
    assert {s.state for s in fetch.fetch("lm_eval/winogrande", tmp_path, hub=again)} == {"ok"}
    assert again.asked == [("allenai/winogrande", "winogrande_xl", "a" * 40)]


def test_a_file_that_the_user_brought_stays(tmp_path: Path) -> None:
    lines = '{"sentence": "a _ b.", "option1": "x", "option2": "y", "answer": "1"}\n'
    own = tmp_path / "lm_eval" / "winogrande" / "winogrande_xl" / "validation.jsonl"
    own.parent.mkdir(parents=True)
    own.write_text(lines)
    found = {s.name: s.state for s in fetch.fetch("lm_eval/winogrande", tmp_path, hub=FakeHub())}
    names = ("winogrande/winogrande_xl/train.parquet", "winogrande/winogrande_xl/validation.jsonl")
    assert found == dict(zip(names, ("ok", "unrecognised"), strict=True))
    assert own.read_text() == lines
    assert not own.with_suffix(".parquet").exists()


def test_a_file_of_the_whole_set_stands_in_for_the_asked_split_alone(tmp_path: Path) -> None:
    own = tmp_path / "lm_eval" / "winogrande" / "winogrande_xl.jsonl"
    own.parent.mkdir(parents=True)
    own.write_text('{"sentence": "a _ b.", "option1": "x", "option2": "y", "answer": "1"}\n')
    found = {s.name: s.state for s in fetch.fetch("lm_eval/winogrande", tmp_path, hub=FakeHub())}
    assert found == {"winogrande/winogrande_xl.jsonl": "unrecognised", "winogrande/winogrande_xl/train.parquet": "ok"}


def test_a_split_that_a_set_lacks_is_asked_for_once(tmp_path: Path) -> None:
    hub = FakeHub(splits=("validation",))
    assert [s.state for s in fetch.fetch("lm_eval/winogrande", tmp_path, hub=hub)] == ["ok"]
    asked = len(hub.asked)
    fetch.fetch("lm_eval/winogrande", tmp_path, hub=hub)
    assert len(hub.asked) == asked


def test_a_group_fetches_each_configuration_once(tmp_path: Path) -> None:
    wanted = fetch.wanted("lm_eval/bbh_zeroshot")
    assert len(wanted) == 27
    assert {want.path for want in wanted} == {"SaylorTwift/bbh"}


def test_what_the_hub_refuses_is_one_line(tmp_path: Path) -> None:
    class Gated(FakeHub):
        def commit(self, path: str, revision: str | None) -> str:
            raise OSError("Access to dataset is gated.\nYou must be authenticated.")

    with pytest.raises(UsageError, match="set HF_TOKEN") as caught:
        fetch.fetch("lm_eval/winogrande", tmp_path, hub=Gated())
    assert "\n" not in str(caught.value)


def test_a_hub_that_is_not_reached_is_one_line(tmp_path: Path) -> None:
    class ConnectError(Exception):
        """Of an HTTP library: no OSError."""

    class Away(FakeHub):
        def commit(self, path: str, revision: str | None) -> str:
            raise ConnectError("Name or service not known")

    with pytest.raises(UsageError, match=r"allenai/winogrande.*cannot be had from the hub.*Name or service not known"):
        fetch.fetch("lm_eval/winogrande", tmp_path, hub=Away())


def test_offline_nothing_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KLEVAL_OFFLINE", "1")
    hub = FakeHub()
    with pytest.raises(UsageError, match="--offline forbids"):
        fetch.fetch("lm_eval/winogrande", tmp_path, hub=hub)
    assert hub.asked == []


def test_data_of_the_authors_come_from_them(tmp_path: Path) -> None:
    urls = {s.url for s in assets.verify("lm_eval/gsm8k", tmp_path)}
    assert urls == {
        f"https://raw.githubusercontent.com/openai/grade-school-math/master/grade_school_math/data/{split}.jsonl"
        for split in ("train", "test")
    }


def test_a_task_of_bbh_needs_its_own_file_alone(tmp_path: Path) -> None:
    assert [s.name for s in assets.verify("lm_eval/bbh_zeroshot_navigate", tmp_path)] == ["navigate.json"]
