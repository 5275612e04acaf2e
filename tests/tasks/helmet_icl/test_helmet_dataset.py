"""The loaders give the same items from the authors' files and from the hub's shape, and say what is wrong with a file."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from kleval.tasks.data import MissingData
from kleval.tasks.helmet_icl.dataset import find, read
from kleval.tasks.helmet_icl.official import SPECS, Item, Pool, chosen_items, item_seed, label_numbers
from kleval.types import UsageError

REAL = {"banking77": (10003, 3080), "clinic150": (15250, 3100), "trec_coarse": (5452, 500), "trec_fine": (5452, 500)}
# The authors' two examples that the hub's cards show, with their numbers there.
FIRST = {
    "banking77": Item("I am still waiting on my card?", 11),
    "clinic150": Item("what expression would i use to say i love you if i were an italian", 61),
    "trec_coarse": Item("How did serfdom develop in and then leave Russia ?", 2),
    "trec_fine": Item("How did serfdom develop in and then leave Russia ?", 26),
}


@pytest.mark.parametrize("name", REAL)
def test_the_real_data_are_read_whole_with_the_hubs_numbers(real_data: Path, name: str) -> None:
    source = find(name, real_data)
    train, test = read(source)
    assert (len(train), len(test)) == REAL[name]
    assert train[0] == FIRST[name]
    assert {item.label for item in train} == set(range(SPECS[name].n_labels))
    assert "authors' files" in source.revision


def test_items_out_of_scope_come_last(real_data: Path) -> None:
    oos = SPECS["clinic150"].names.index("oos")
    for items, n in zip(read(find("clinic150", real_data)), (250, 100), strict=True):
        assert {item.label for item in items[-n:]} == {oos}
        assert Counter(item.label for item in items)[oos] == n


def test_the_recorded_official_run_on_banking77_is_met(real_data: Path) -> None:
    """It numbered labels in the order of categories.json, and chose few test items. Its first answer was 33."""
    order = json.loads((real_data / "banking77/categories.json").read_text())
    train, test = (
        [Item(item.text, order.index(SPECS["banking77"].names[item.label])) for item in items]
        for items in read(find("banking77", real_data))
    )
    first = chosen_items(test, 42, 10)[0]
    own_seed = item_seed(first.text, 42)
    assert label_numbers(77, own_seed)[first.label] == 33
    assert len(Pool.of(train).balanced(360, own_seed)) == 360


@pytest.mark.parametrize("by_name", [False, True])
@pytest.mark.parametrize("suffix", [".jsonl", ".parquet", "-00000-of-00001.parquet"])
@pytest.mark.parametrize("name", ["banking77", "trec_fine", "clinic150"])
def test_the_hubs_shape_gives_the_same_items(
    real_data: Path, tmp_path: Path, name: str, suffix: str, by_name: bool
) -> None:
    spec = SPECS[name]
    splits = [items[:40] for items in read(find(name, real_data))]
    for split, items in zip(spec.splits, splits, strict=True):
        rows = [{"text": item.text, spec.field: spec.names[item.label] if by_name else item.label} for item in items]
        write(tmp_path / "helmet_icl" / spec.folder / f"{split}{suffix}", rows)
    source = find(name, tmp_path)
    assert "hub's shape" in source.revision
    assert [list(items) for items in read(source)] == [list(items) for items in splits]


def write(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    parquet.write_table(pyarrow.Table.from_pylist(rows), path)


def test_nlu_is_read_from_its_csv_without_annotations(tmp_path: Path) -> None:
    header = "userid;answerid;scenario;intent;status;answer_annotation;notes;suggested_entities;answer_normalised;answer;question"
    rows = [
        '1;1;alarm;set;;wake me up at [time : five am] [date : this week];;;;;"q; with semicolon"',
        "1;2;alarm;set;;null;;;;;q",
        "2;3;general;joke;;tell me a joke;;;;;q",
    ]
    folder = tmp_path / "nlu"
    folder.mkdir()
    (folder / SPECS["nlu"].files[0]).write_text("\n".join([header, *rows]) + "\n")
    (items,) = read(find("nlu", tmp_path))
    assert items == (
        Item("wake me up at five am this week", SPECS["nlu"].names.index("alarm_set")),
        Item("tell me a joke", SPECS["nlu"].names.index("general_joke")),
    )


def test_the_byte_that_the_hub_replaces_is_a_blank(tmp_path: Path) -> None:
    folder = tmp_path / "trec"
    folder.mkdir()
    for file in SPECS["trec_fine"].files:
        (folder / file).write_bytes(b"LOC:city What is the sister\xf0city of Caf\xe9 ?\n")
    assert read(find("trec_fine", tmp_path))[0][0].text == "What is the sister city of Caf\xe9 ?"


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("banking77/train.csv", "text,category\nhello,nonsense\n", "row 0: 'nonsense' is none of the 77 labels"),
        ("banking77/train.csv", "text,label\nhello,1\n", "field 'category' is missing"),
        ("banking77/train.csv", "text,category\n", "has no rows"),
        ("clinc150/data_oos_plus.json", '{"train": [["a", "balance"]]', "is not JSON"),
        ("clinc150/data_oos_plus.json", '{"train": [["a", "balance"]]}', "field 'oos_train' is missing"),
        ("clinc150/data_oos_plus.json", '{"train": [["a"]], "oos_train": []}', "train row 0 must be"),
        ("trec/train_5500.label", "LOC:city Where ?\nLOC:moon Where ?\n", "row 1: 'LOC:moon' is none of the 50"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_with_its_row(tmp_path: Path, file: str, content: str, said: str) -> None:
    folder, _, changed = file.partition("/")
    name = {"banking77": "banking77", "clinc150": "clinic150", "trec": "trec_fine"}[folder]
    (tmp_path / folder).mkdir()
    for needed in SPECS[name].files:
        (tmp_path / folder / needed).write_text("text,category\nhello,card_arrival\n")
    (tmp_path / folder / changed).write_text(content)
    with pytest.raises(UsageError, match=said.replace("(", r"\(")) as raised:
        read(find(name, tmp_path))
    assert changed in str(raised.value)
    assert "\n" not in str(raised.value)


def test_missing_files_are_told_with_what_gets_them(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="kleval data fetch helmet_icl"):
        find("nlu", tmp_path)


def test_half_of_the_hubs_files_is_not_enough(tmp_path: Path) -> None:
    write(tmp_path / "trec" / "train.jsonl", [{"text": "Where ?", "fine_label": 1}])
    with pytest.raises(MissingData, match=r"trec/train_5500\.label.*kleval data fetch helmet_icl"):
        find("trec_fine", tmp_path)
