"""A run keeps its prompts, is continued and amended by its command, takes no other's place, and is found and read."""

import gzip
import json

import pytest
from store_helpers import MANIFEST, create, failed, one_line, row, sample_file

from kleval.store import RunStore, compare
from kleval.types import UsageError, prompt_hash


def test_a_prompt_is_stored_once_and_read_back_by_its_hash(tmp_path):
    with create(tmp_path) as store:
        store.append(row(0), "prompt 0")
        store.append(row(0, model="m2"), "prompt 0")
        [file] = tmp_path.glob("prompts/*")
        assert gzip.decompress(file.read_bytes()) == b"prompt 0"
        assert store.read_prompt(row(0)) == "prompt 0"


@pytest.mark.parametrize(
    "prompt", ["", "a\r\nb\0\udc80é", ({"role": "user", "content": "é\nx"}, {"role": "assistant", "content": ""})]
)
def test_any_prompt_reads_back(tmp_path, prompt):
    one = row(0, prompt_hash=prompt_hash(prompt, "so:"))
    with create(tmp_path) as store:
        store.append(one, prompt)
        assert store.read_prompt(one) == prompt


def test_prompts_of_a_task_and_length_share_a_file_by_tokenizer(tmp_path):
    models = {m: {"tokenizer": {"digest": d * 64}} for m, d in (("m", "a"), ("m2", "a"), ("m3", "b"))}
    with RunStore.create(tmp_path, {**MANIFEST, "models": models}) as store:
        for model, index in (("m", 0), ("m", 1), ("m2", 1), ("m3", 2), ("m3", 0)):
            store.append(row(index, model=model), f"prompt {index}")
        store.append(row(3, ctx=2048), "prompt 3")
        store.append(row(3, id="b-3", task="fam/b"), "prompt 3")
    sizes = {file.name: gzip.decompress(file.read_bytes()) for file in tmp_path.glob("prompts/*")}
    assert sizes == {
        "fam__a.1024.aaaaaaaa.gz": b"prompt 0prompt 1",
        "fam__a.1024.bbbbbbbb.gz": b"prompt 2",
        "fam__a.2048.aaaaaaaa.gz": b"prompt 3",
        "fam__b.1024.aaaaaaaa.gz": b"prompt 3",
    }
    reader = RunStore.open(tmp_path)
    assert [reader.read_prompt(r) for r in reader.rows()] == [f"prompt {r.index}" for r in reader.rows()]


def test_a_reader_finds_a_prompt_that_was_written_after_it_looked(tmp_path):
    with create(tmp_path) as store:
        store.append(row(0), "prompt 0")
        reader = RunStore.open(tmp_path)
        assert reader.read_prompt(row(0)) == "prompt 0"
        store.append(row(1), "prompt 1")
        assert reader.read_prompt(row(1)) == "prompt 1"


@pytest.mark.parametrize("kept", [1, 30, 60, -1])
def test_a_prompt_cut_short_by_a_kill_is_cut_off_and_stored_again(tmp_path, kept):
    with create(tmp_path) as store:
        store.append(row(0), "prompt 0")
        [file] = tmp_path.glob("prompts/*")
        whole = file.read_bytes()
    with create(tmp_path) as store:
        store.put_prompt("m", "fam/a", 1024, row(1).prompt_hash, "prompt 1")
    file.write_bytes((whole + file.read_bytes()[len(whole) :])[: len(whole) + kept if kept > 0 else kept])
    assert RunStore.open(tmp_path).read_prompt(row(0)) == "prompt 0"
    with create(tmp_path) as store:
        assert store.repaired == [file]
        assert file.read_bytes() == whole
        store.append(row(1), "prompt 1")
        assert store.read_prompt(row(1)) == "prompt 1"


def test_a_prompt_file_damaged_in_its_middle_is_named_and_not_cut(tmp_path):
    with create(tmp_path) as store:
        for index in range(3):
            store.append(row(index), f"prompt {index}")
    [file] = tmp_path.glob("prompts/*")
    damaged = b"x" * 60 + file.read_bytes()[60:]
    file.write_bytes(damaged)
    with pytest.raises(UsageError, match=r"damaged at byte 0: move it away") as error:
        create(tmp_path)
    assert str(file) in one_line(error)
    assert file.read_bytes() == damaged


def test_a_damaged_prompt_is_refused(tmp_path):
    with create(tmp_path) as store:
        store.append(row(0), "prompt 0")
        store.append(row(1), "prompt 1")
    [file] = tmp_path.glob("prompts/*")
    whole = file.read_bytes()
    half = len(whole) // 2
    file.write_bytes(whole[:56] + whole[half + 56 :] + whole[half:])  # the first's hash, the second's text
    with pytest.raises(UsageError, match="damaged"):
        RunStore.open(tmp_path).read_prompt(row(0))
    file.write_bytes(whole[:64] + b"\xff" * 8 + whole[72:])
    with pytest.raises(UsageError, match="cannot read the prompt"):
        RunStore.open(tmp_path).read_prompt(row(0))


def test_the_same_command_continues(tmp_path):
    with create(tmp_path) as store:
        store.append(row(0))
    with create(tmp_path) as store:
        assert store.answered(row(0).key) == (row(0).prompt_hash, 3)
        assert store.answered(row(1).key) is None
        assert store.answered_by_cell() == {("m", "fam/a", 1024): {(0, 0)}}
        assert store.manifest["started"] == MANIFEST["started"]


def test_a_failed_sample_is_to_be_asked_again(tmp_path):
    with create(tmp_path) as store:
        store.append(failed(0))
    with create(tmp_path) as store:
        assert store.answered(row(0).key) is None
        assert store.counts() == {"finished": 1, "answered": 0, "scored": 0, "failed": 1, "unscored": 0}


def test_a_changed_command_is_refused_with_every_difference(tmp_path):
    create(tmp_path).close()
    with pytest.raises(UsageError) as error:
        create(tmp_path, seed=7, tasks=["fam/b"])
    text = one_line(error)
    assert "seed: 42 -> 7" in text
    assert "tasks: fam/a -> fam/b" in text
    assert "--out" in text


@pytest.mark.parametrize(
    ("setting", "value"), [("limit", 9), ("repeats", 3), ("tasks", ["fam/b", "fam/a"]), ("ctx", [1024, 2048])]
)
def test_a_run_grows_only_when_told(tmp_path, setting, value):
    create(tmp_path).close()
    with pytest.raises(UsageError, match=f"{setting}: .* -> .*--amend"):
        create(tmp_path, **{setting: value})
    with create(tmp_path, amend=True, **{setting: value}) as store:
        [amendment] = store.manifest["amendments"]
        assert amendment["changes"][0].startswith(f"{setting}: ")
    create(tmp_path, **{setting: value}).close()


@pytest.mark.parametrize(("setting", "value"), [("limit", 4), ("ctx", []), ("tasks", ["fam/b"]), ("seed", 43)])
def test_amending_only_adds(tmp_path, setting, value):
    create(tmp_path).close()
    with pytest.raises(UsageError, match=f"{setting}: "):
        create(tmp_path, amend=True, **{setting: value})


def test_the_order_of_tasks_is_no_change():
    assert compare({"tasks": ["a", "b"]}, {"tasks": ["b", "a"]}) == []


def test_a_new_model_brings_its_own_settings():
    old = {"models": ["m"], "models.m.dtype": "float32"}
    new = {"models": ["m", "n@1.x"], "models.m.dtype": "float32", "models.n@1.x.dtype": "bfloat16"}
    [change] = compare(old, new)
    assert (change.setting, change.grows) == ("models", True)


def test_a_model_that_changed_is_a_change():
    [change] = compare({"models": ["m"], "models.m.dtype": "a"}, {"models": ["m"], "models.m.dtype": "b"})
    assert str(change) == "models.m.dtype: a -> b"
    assert not change.grows
    [change] = compare({"models": ["m"]}, {"models": ["m"], "models.m.dtype": "b"})
    assert str(change) == "models.m.dtype: (not set) -> b"


def test_a_folder_with_something_else_is_not_taken(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    for refuse in (RunStore.check_place, create):
        with pytest.raises(UsageError, match=r"not a run \(it has thesis.tex\)"):
            refuse(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir() if p.name != ".lock") == ["thesis.tex"]


def test_a_run_of_another_kind_is_named_before_its_settings_are_compared(tmp_path):
    create(tmp_path / "run").close()
    with pytest.raises(UsageError, match="holds a run, not a profile"):
        RunStore.check_place(tmp_path / "run", "profile")


def test_a_run_killed_before_its_manifest_begins_again(tmp_path):
    (tmp_path / "tmp").mkdir()
    (tmp_path / "tmp" / "run.json").write_bytes(b'{"sch')
    (tmp_path / "tmp" / "abc.txt.gz").write_bytes(b"half a prompt")
    (tmp_path / ".lock").touch()
    with create(tmp_path):
        assert list((tmp_path / "tmp").iterdir()) == []


def test_a_file_is_no_place_for_a_run(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="is a file"):
        RunStore.check_place(tmp_path / "file")
    with pytest.raises(UsageError, match="cannot use"):
        create(tmp_path / "file" / "run")


def test_a_place_that_cannot_be_written_is_told_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr("kleval.store.run.os.access", lambda path, mode: False)
    with pytest.raises(UsageError, match=f"cannot write in {tmp_path}:"):
        RunStore.check_place(tmp_path / "deep" / "run")
    assert list(tmp_path.iterdir()) == []


def test_what_is_no_run_is_told_so(tmp_path):
    with pytest.raises(UsageError, match="not a run directory"):
        RunStore.open(tmp_path)
    (tmp_path / "run.json").write_text('{"schema_version": 1')
    with pytest.raises(UsageError, match="damaged") as error:
        RunStore.open(tmp_path)
    one_line(error)
    (tmp_path / "run.json").write_text('{"schema_version": 1, "status": "running", "started": ""}')
    with pytest.raises(UsageError, match=r"damaged \(settings"):
        RunStore.open(tmp_path)
    (tmp_path / "run.json").write_text(json.dumps({**MANIFEST, "schema_version": 1, "skips": [{"model": "m"}]}))
    with pytest.raises(UsageError, match=r"damaged \(skips.0.task"):
        RunStore.open(tmp_path)
    (tmp_path / "run.json").write_text(json.dumps({**MANIFEST, "schema_version": 99}))
    with pytest.raises(UsageError, match="newer kleval"):
        RunStore.open(tmp_path)


def test_runs_are_found_by_name(tmp_path):
    assert RunStore.find_runs(tmp_path / "absent") == []
    for name in ("b", "a"):
        create(tmp_path / name).close()
    (tmp_path / "c").mkdir()
    assert RunStore.find_runs(tmp_path) == [tmp_path / "a", tmp_path / "b"]
    assert RunStore.find_runs(tmp_path / "a") == [tmp_path / "a"]


def test_reading_changes_nothing(tmp_path):
    with create(tmp_path) as store:
        store.append(row(0))
    with sample_file(tmp_path).open("ab") as file:
        file.write(b'{"torn')
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    store = RunStore.open(tmp_path)
    assert list(store.rows()) == [row(0)]
    with pytest.raises(ValueError, match="open for reading"):
        store.append(row(1))
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == before


def test_a_reader_sees_rows_that_a_writer_adds(tmp_path):
    with create(tmp_path) as writer:
        reader = RunStore.open(tmp_path)
        assert list(reader.rows()) == []
        writer.append(row(0))
        assert list(reader.rows()) == [row(0)]
