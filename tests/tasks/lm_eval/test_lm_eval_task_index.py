"""Names of lm-eval's tasks."""

from __future__ import annotations

from importlib import metadata, util
from pathlib import Path

import pytest

from kleval.tasks.lm_eval import task_index
from kleval.tasks.registry import expand
from kleval.types import UsageError

pytest.importorskip("lm_eval")


def folder_of(name: str) -> Path:
    file = task_index.find(name).file
    assert file is not None
    return file.parent


@pytest.mark.parametrize("name", ["gsm8k", "bbh_cot_fewshot_navigate", "gpqa_diamond_zeroshot", "fda", "arc_challenge"])
def test_names_of_a_folder_are_those_that_lm_eval_finds(name: str) -> None:
    from lm_eval.tasks import TaskManager

    folder = folder_of(name)
    theirs = TaskManager(include_path=str(folder), include_defaults=False).task_index
    kinds = {"PY_TASK": "task"}
    for entry in theirs.values():
        ours = task_index.find(entry.name)
        assert ours.kind == kinds.get(entry.kind.name, entry.kind.name.lower())
        if ours.kind == "tag":
            assert entry.tags <= ours.tasks
        else:
            assert ours.file == entry.yaml_path


def test_a_file_without_an_end_of_line_says_all_that_it_says(tmp_path: Path) -> None:
    (tmp_path / "one.yaml").write_text("task: one\ninclude:\ntag:\n  - a\n  - b")
    assert task_index._names(tmp_path / "one.yaml", {}) == {"task": "one", "tag": ["a", "b"]}


def test_a_file_that_includes_itself_ends(tmp_path: Path) -> None:
    (tmp_path / "one.yaml").write_text("task: one\ninclude: two.yaml\n")
    (tmp_path / "two.yaml").write_text("task: two\ntag: a\nclass: !function some.thing\ninclude: one.yaml\n")
    found = task_index._names(tmp_path / "one.yaml", {})
    assert found == {"task": "one", "tag": "a", "class": "some.thing"}


def test_a_task_is_itself() -> None:
    assert expand(["lm_eval/gsm8k", "lm_eval/gsm8k:8shot"], "official") == ["lm_eval/gsm8k", "lm_eval/gsm8k:8shot"]


def test_a_group_is_its_tasks() -> None:
    found = expand(["lm_eval/bbh"], "official")
    assert len(found) == 27
    assert found[0] == "lm_eval/bbh_cot_fewshot_boolean_expressions"


def test_a_group_of_tags_of_tasks_is_the_tasks() -> None:
    assert len(expand(["lm_eval/mmlu"], "official")) == 57


def test_shots_of_a_group_are_those_of_its_tasks() -> None:
    assert set(task_index.expand("lm_eval/gpqa_diamond_n_shot:5shot")) == {"lm_eval/gpqa_diamond_n_shot:5shot"}
    assert all(task.endswith(":5shot") for task in task_index.expand("lm_eval/mmlu_stem:5shot"))


def test_shots_that_a_group_sets_are_kept() -> None:
    assert "lm_eval/tinyMMLU:0shot" in task_index.expand("lm_eval/tinyBenchmarks")


def test_a_group_that_changes_its_tasks_otherwise_is_refused() -> None:
    with pytest.raises(UsageError, match="fewshot_split"):
        task_index.expand("lm_eval/openllm")


def test_a_builtin_edition_of_a_group_is_one_task() -> None:
    assert expand(["lm_eval/bbh"], "builtin") == ["lm_eval/bbh"]


def test_an_unknown_name_gets_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"did you mean .*lm_eval/gsm8k"):
        expand(["lm_eval/gsm8kk"], "official")


@pytest.mark.parametrize("wrong", ["lm_eval/", "lm_eval/gsm8k:shots", "lm_eval/gsm8k:-1shot", "lm_eval/a b"])
def test_what_is_no_name_is_refused(wrong: str) -> None:
    with pytest.raises(UsageError):
        expand([wrong], "official")


def test_the_bare_prefix_says_what_to_write() -> None:
    with pytest.raises(UsageError, match="as lm_eval/gsm8k"):
        expand(["lm_eval"])


def test_a_task_remembers_the_group_that_brought_it() -> None:
    task_index.expand("lm_eval/bbh_zeroshot")
    assert task_index.asked_as("lm_eval/bbh_zeroshot_navigate") == "lm_eval/bbh_zeroshot"
    assert task_index.asked_as("lm_eval/hellaswag") == "lm_eval/hellaswag"


def test_without_lm_eval_the_line_that_installs_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    task_index.index.cache_clear()
    monkeypatch.setattr(metadata, "version", missing)
    monkeypatch.setattr(util, "find_spec", lambda name: None)
    try:
        with pytest.raises(UsageError, match=r"pip install .*'lm-eval.math.>="):
            expand(["lm_eval/hendrycks_math"], "official")
        assert expand(["lm_eval/gsm8k"], "official") == ["lm_eval/gsm8k"]  # it has a builtin edition
    finally:
        task_index.index.cache_clear()
