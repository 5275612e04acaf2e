from __future__ import annotations

from pathlib import Path

import pytest

from kleval.tasks.registry import OPEN, TASKS, Provider, expand, families, listed, load_task, provider, themselves
from kleval.types import Sample, Tokenizer, UsageError

LONG = ("ruler", "mrcr", "helmet_icl", "longbench2", "frames", "repoqa", "lca")


def test_a_family_stands_for_its_tasks_in_order_without_doubles() -> None:
    ruler = families()["ruler"]
    assert len(ruler) == 13
    assert expand(["ruler/vt", "ruler"]) == ["ruler/vt", *(t for t in ruler if t != "ruler/vt")]


def test_patterns_and_exclusions_choose_among_tasks() -> None:
    ruler = families()["ruler"]
    assert expand(["ruler", "-ruler/cwe"]) == expand(["-ruler/cwe", "ruler"]) == [t for t in ruler if t != "ruler/cwe"]
    assert expand(["ruler/niah_*"]) == [task for task in ruler if "niah_" in task]
    assert expand(["ruler", "-ruler/niah_*", "ruler/vt"]) == [task for task in ruler if "niah_" not in task]
    assert themselves(["ruler", "ruler/vt", "ruler/niah_*", "-ruler/cwe"]) == ("ruler/vt",)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["ruler", "-repoqa"], "-repoqa takes no task away"),
        (["-ruler"], "-ruler takes no task away"),
        (["ruler", "-ruler/*"], "leaves no task"),
        (["ruler", "-rulr"], "did you mean ruler"),
        (["ruler/no_*"], "no task is called like"),
    ],
)
def test_a_choice_of_nothing_is_refused(names: list[str], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        expand(names)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("ruler/niah_single1", "ruler/niah_single_1"),
        ("niah_single_1", "ruler/niah_single_1"),
        ("rulr", "did you mean ruler"),
        ("qwxyz", "kleval ls tasks"),
    ],
)
def test_an_unknown_task_names_the_nearest(name: str, said: str) -> None:
    for ask in (lambda: expand([name]), lambda: load_task(name)):
        with pytest.raises(UsageError, match=said):
            ask()


def test_tasks_whose_prompts_do_not_grow_say_so() -> None:
    named = [name for family in ("short", "code") for name in families()[family]]
    assert not any(getattr(load_task(name), "grows", True) for name in named)
    assert all(getattr(load_task(name), "grows", True) for family in LONG for name in families()[family])
    assert not getattr(load_task("lm_eval/gsm8k"), "grows", True)


def test_a_family_is_not_a_task() -> None:
    with pytest.raises(UsageError, match="family"):
        load_task("ruler")


def test_unknown_edition_and_protocol_are_named_with_what_there_is() -> None:
    with pytest.raises(UsageError, match="did you mean official"):
        load_task("ruler/vt", edition="offical")
    with pytest.raises(UsageError, match="nvidia-c3f5e3b"):
        load_task("ruler/vt", protocol="lm-eval-0.4.13")


def test_a_missing_file_is_a_line_that_says_what_fetches_it(tmp_path: Path) -> None:
    for name, file in (("niah_single_2", "PaulGrahamEssays.json"), ("qa_1", "squad.json"), ("qa_2", "hotpotqa.json")):
        with pytest.raises(UsageError, match="kleval data fetch ruler") as error:
            load_task(f"ruler/{name}", edition="official", data_dir=tmp_path)
        assert file in str(error.value)
        assert "\n" not in str(error.value)


def test_tasks_without_files_load_officially_on_a_bare_machine(tmp_path: Path) -> None:
    for name in ("niah_single_1", "niah_multikey_2", "niah_multikey_3", "vt", "cwe", "fwe"):
        task = load_task(f"ruler/{name}", edition="official", data_dir=tmp_path)
        assert (task.id, task.edition, task.protocol) == (f"ruler/{name}", "official", "nvidia-c3f5e3b")


def test_every_registered_task_loads() -> None:
    for task_id in TASKS:
        assert load_task(task_id).id == task_id


def test_a_line_of_the_registry_without_tasks_is_a_provider_s() -> None:
    assert OPEN
    members = {name for name in vars(Provider) if not name.startswith("_")} | set(Provider.__annotations__)
    assert [name for begins in OPEN for name in members if not hasattr(provider(begins), name)] == []


def test_a_line_is_a_family_s_or_one_task_s() -> None:
    assert listed("echo/number", "kleval.tasks.echo:Number") == {"echo/number": "kleval.tasks.echo:Number"}
    assert listed("mrcr/", "kleval.tasks.mrcr")["mrcr/4needle"] == "kleval.tasks.mrcr.task:needles_4"


def test_tasks_that_need_text_continued_say_so(words: Tokenizer) -> None:
    """A card's `needs` against the prompts themselves; code's and short's have none."""
    for task_id in TASKS:
        task = load_task(task_id)
        one = next(s for s in task.samples(words, 4096, 1, 42) if isinstance(s, Sample))
        assert getattr(task, "needs_continued_text", False) == bool(one.answer_prefix), task_id


@pytest.mark.parametrize("task_id", sorted(name for name in TASKS if name.partition("/")[0] in LONG))
def test_every_card_says_what_a_reader_of_a_number_must_know(task_id: str) -> None:
    card = load_task(task_id).card()  # type: ignore[attr-defined]
    for name in ("source", "revision", "metric", "limits", "description"):
        assert isinstance(card[name], str)
        assert card[name]
    assert len(card["prompt_sha256"]) == 64
    assert card["deviations"]
    assert card["defects"]
