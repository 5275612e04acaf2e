"""Rows of a run come back as written and in order, from the file of their task; torn lines are cut, corrupt ones named."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from store_helpers import create, failed, one_line, row, sample_file

from kleval import files as store_files
from kleval.store import Row, RunStore
from kleval.store.records import from_line, to_line
from kleval.types import UsageError


def test_rows_come_back_as_they_were_written(tmp_path):
    written = [row(0), row(1, 0.25, extracted=["a"], meta={"depth": 0.5}, outcomes=({"text": "é\u2028\n"},)), failed(2)]
    with create(tmp_path) as store:
        for one in written:
            store.append(one)
        assert list(store.rows()) == written
    assert list(RunStore.open(tmp_path).rows()) == written


@given(st.text(), st.floats(allow_nan=True), st.floats(0, 1))
@settings(max_examples=60, deadline=None)
def test_any_text_makes_one_line_that_reads_back(text, number, score):
    one = row(0, score, extracted=text, meta={"n": number})
    line = to_line(one)
    assert line.count(b"\n") == 1
    back = from_line(Row, line)
    assert back.extracted == text.encode("utf-8", "replace").decode()
    assert back.meta["n"] == number if math.isfinite(number) else back.meta["n"] is None
    assert back.score == score


def test_rows_are_ordered_by_what_they_are_and_not_by_when_they_came(tmp_path):
    with create(tmp_path) as store:
        for one in (row(10), row(2), row(2, repeat=1), row(0, ctx=512), row(1, task="fam/B")):
            store.append(one)
        got = [(r.task, r.ctx, r.index, r.repeat) for r in store.rows()]
    assert got == sorted(got)


def test_a_row_is_in_the_file_of_its_task_and_length(tmp_path):
    with create(tmp_path) as store:
        store.append(row(0, model="org/name", task="fam/a", ctx=2048))
    assert (tmp_path / "samples" / "org__name" / "fam__a.2048.jsonl").is_file()


def test_names_that_share_a_file_stay_apart(tmp_path):
    with create(tmp_path) as store:
        store.append(row(0, 1.0, model="a/b"))
        store.append(row(0, 0.0, model="a__b"))
        assert {(r.model, r.score) for r in store.rows()} == {("a/b", 1.0), ("a__b", 0.0)}


@pytest.mark.parametrize("name", ["..", ".", "../../etc", "a\\b:c", "x" * 500, "模型"])
def test_no_model_name_leaves_the_run_directory(tmp_path, name):
    run = tmp_path / "run"
    with create(run) as store:
        store.append(row(0, model=name))
    assert list(tmp_path.iterdir()) == [run]
    assert [r.model for r in RunStore.open(run).rows()] == [name]
    [folder] = (run / "samples").iterdir()
    assert list(folder.glob("*.jsonl"))


def test_an_answer_stands_for_the_failure_before_it(tmp_path):
    with create(tmp_path) as store:
        store.append(failed(0))
        store.append(failed(0, seconds=1.0))
        store.append(row(0))
    assert list(RunStore.open(tmp_path).rows()) == [row(0)]


def test_an_answered_sample_takes_no_second_row(tmp_path):
    with create(tmp_path) as store:
        store.append(row(0))
        with pytest.raises(ValueError, match="answer already"):
            store.append(row(0, 0.0))


def test_the_first_answer_stands_when_a_file_holds_two(tmp_path):
    with create(tmp_path) as store:
        store.append(row(0))
    with sample_file(tmp_path).open("ab") as file:
        file.write(to_line(row(0, 0.0)) + to_line(failed(0)))
    assert list(RunStore.open(tmp_path).rows()) == [row(0)]


@given(st.data())
@settings(max_examples=25, deadline=None)
def test_a_file_cut_at_any_byte_keeps_every_whole_line(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("cut")
    lines = [to_line(row(i, outcomes=({"text": "é" * i},))) for i in range(4)]
    with create(path) as store:
        for i in range(4):
            store.append(row(i, outcomes=({"text": "é" * i},)))
    raw = sample_file(path).read_bytes()
    assert raw == b"".join(lines)
    keep = data.draw(st.integers(0, len(raw)))
    sample_file(path).write_bytes(raw[:keep])
    whole = sum(sum(map(len, lines[: i + 1])) <= keep for i in range(4))
    assert [r.index for r in RunStore.open(path).rows()] == list(range(whole))
    with create(path) as store:
        assert sample_file(path).read_bytes() == b"".join(lines[:whole])
        torn = keep != sum(map(len, lines[:whole]))
        assert store.repaired == ([sample_file(path)] if torn else [])
        for i in range(whole, 4):
            store.append(row(i, outcomes=({"text": "é" * i},)))
    assert sample_file(path).read_bytes() == raw


def test_a_torn_line_longer_than_a_block_is_cut(tmp_path):
    file = tmp_path / "x.jsonl"
    file.write_bytes(b"whole\n" + b"y" * 200_000)
    assert store_files.cut(file, store_files.end_of_lines(file)) == 200_000
    assert file.read_bytes() == b"whole\n"


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (b'{"model": "m", "id\n', "Invalid JSON"),
        (b"\0\0\0\0\n", "Invalid JSON"),
        (b"[]\n", "object"),
        (to_line(row(1)).replace(b'"score": 1.0', b'"score": 7.0'), "score"),
        (to_line(row(1)).replace(b'"ctx": 1024', b'"ctx": "1024"'), "ctx"),
        (to_line(row(1)).replace(b'"metric": "acc"', b'"metrik": "acc"'), "metri"),
        (to_line(failed(1)).replace(b'"score": null', b'"score": 0.0'), "failed sample"),
        (to_line(row(1, outcomes=({"temperature": "warm"},))), "outcomes.0.temperature"),
    ],
)
def test_a_corrupt_row_is_named_by_file_and_line(tmp_path, line, why):
    with create(tmp_path) as store:
        store.append(row(0))
    with sample_file(tmp_path).open("ab") as file:
        file.write(line + to_line(row(2)))
    for read in (lambda: list(RunStore.open(tmp_path).rows()), lambda: create(tmp_path)):
        with pytest.raises(UsageError) as error:
            read()
        text = one_line(error)
        assert f"{sample_file(tmp_path)} line 2" in text
        assert why in text
        assert "delete that line" in text


def test_a_run_refused_for_a_corrupt_row_is_not_left_locked(tmp_path):
    with create(tmp_path):
        pass
    sample_file(tmp_path).parent.mkdir(parents=True)
    sample_file(tmp_path).write_bytes(b"{}\n")
    with pytest.raises(UsageError):
        create(tmp_path)
    sample_file(tmp_path).unlink()
    create(tmp_path).close()
