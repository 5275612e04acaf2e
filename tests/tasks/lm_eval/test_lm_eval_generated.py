"""kleval's tasks inside lm-eval."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
import yaml

from kleval.files import family_facts
from kleval.tasks.lm_eval import include
from kleval.tasks.registry import TASKS, families, load_task
from kleval.types import Tokenizer, UsageError

pytest.importorskip("lm_eval")

FAMILIES = {name for name in families() if family_facts(name).get("lm_eval")}
# What the files were before they were made: sha256 over a family's names and texts, the first 16 digits.
BEFORE = {
    "_generated": "8da72d4e586e95ac",
    "ruler": "7581aaa8eed2fdf6",
    "repoqa": "51393889c36497bb",
    "lca": "d454e8cde0c90267",
    "mrcr": "808e507d189dc668",
    "longbench2": "097aded9f5454979",
    "helmet_icl": "e17b5568421ed2d1",
    "frames": "12f297aff163c0eb",
}


@pytest.fixture(autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path_factory.getbasetemp()))


def manager(**metadata: Any) -> Any:
    from lm_eval.tasks import TaskManager

    return TaskManager(include_path=str(include.folder()), include_defaults=False, metadata=metadata)


def run(names: list[str], backend: Any, **metadata: Any) -> Any:
    from lm_eval import simple_evaluate

    from kleval.tasks.lm_eval.bridge import KlevalLM

    settings = {"tokenizer": "words", "num_samples": 2, **metadata}
    return simple_evaluate(model=KlevalLM(backend), tasks=names, task_manager=manager(**settings), bootstrap_iters=0)


def own(task: str, tokenizer: Tokenizer, ctx: int, n: int = 2) -> Any:
    return load_task(task).samples(tokenizer, ctx, n, 42)


def test_every_file_names_a_task_and_every_task_of_a_family_that_is_there_has_one() -> None:
    texts = {Path(name).stem: text for name, text in include.texts().items() if not Path(name).name.startswith("_")}
    named = {stem: yaml.safe_load(text)["metadata"]["kleval_task"] for stem, text in texts.items()}
    assert named == {f"kleval_{task.replace('/', '_')}": task for task in named.values()}
    assert set(named.values()) == {task for task in TASKS if task.partition("/")[0] in FAMILIES}


@pytest.mark.parametrize("family", BEFORE)
def test_the_files_are_the_bytes_that_they_were(family: str) -> None:
    mine = sorted((name, text) for name, text in include.texts().items() if name.partition("/")[0] == family)
    assert hashlib.sha256(repr(mine).encode()).hexdigest()[:16] == BEFORE[family]


def test_a_folder_is_mended_and_another_state_s_is_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = include.folder(tmp_path)
    (place / "_generated").write_text("?")
    (place / "_kleval_long.yaml").unlink()
    assert include.folder(tmp_path) == place
    assert {p.relative_to(place).as_posix(): p.read_text() for p in place.rglob("*") if p.is_file()} == include.texts()
    monkeypatch.setattr(include, "families", lambda: {"ruler": ["ruler/vt"]})
    assert include.folder(tmp_path) != place


def test_groups_hold_their_families() -> None:
    assert set(manager().all_groups) == {f"kleval_{family}" for family in FAMILIES} | {"kleval_long"}


def test_prompts_and_budgets_are_those_of_kleval_run(words: Tokenizer, told: Any) -> None:
    backend = told(words, lambda request: "x")
    run(["kleval_ruler_niah_single_1"], backend, max_seq_lengths=[512, "1k"])
    made = [sample for ctx in (512, 1024) for sample in own("ruler/niah_single_1", words, ctx)]
    assert [r.prompt for r in backend.asked] == [words.render(s.prompt, s.answer_prefix) for s in made]
    assert [r.max_new_tokens for r in backend.asked] == [s.max_new_tokens for s in made]
    assert all(s.prompt_tokens + s.max_new_tokens <= s.ctx for s in made)


def test_scores_are_those_of_kleval_by_length(words: Tokenizer, told: Any) -> None:
    short = {words.render(s.prompt, s.answer_prefix): s for s in own("ruler/niah_single_1", words, 512)}

    def answer(request: Any) -> str:
        return short[request.prompt].references[0] if request.prompt in short else "no"

    results = run(["kleval_ruler_niah_single_1"], told(words, answer), max_seq_lengths=[512, 1024])
    found = results["results"]["kleval_ruler_niah_single_1"]
    assert (found["512,none"], found["1024,none"], found["score,none"]) == (1.0, 0.0, 0.5)
    assert "4096,none" not in found


def test_one_of_several_right_answers_is_enough_in_qa(words: Tokenizer, told: Any) -> None:
    """lm-eval's own RULER gives a share of the references that were hit."""
    made = {words.render(s.prompt, s.answer_prefix): s for s in own("ruler/qa_1", words, 2048, 8)}
    several = [s for s in made.values() if len(s.references) > 1]
    results = run(
        ["kleval_ruler_qa_1"],
        told(words, lambda request: made[request.prompt].references[-1]),
        max_seq_lengths=[2048],
        num_samples=8,
    )
    assert several
    assert results["results"]["kleval_ruler_qa_1"]["score,none"] == 1.0


def test_conversations_become_turns_of_the_models_template(tiny_chat: Tokenizer, chat_llama: Path, told: Any) -> None:
    from lm_eval import simple_evaluate

    from kleval.tasks.lm_eval.bridge import KlevalLM

    backend = told(tiny_chat, lambda request: "x")
    tasks = manager(pretrained=str(chat_llama), max_seq_lengths="2k", num_samples=1)
    simple_evaluate(
        model=KlevalLM(backend),
        tasks=["kleval_mrcr_2needle"],
        task_manager=tasks,
        bootstrap_iters=0,
        apply_chat_template=True,
    )
    sample = next(iter(own("mrcr/2needle", tiny_chat, 2048, 1)))
    assert backend.asked[0].prompt == tiny_chat.render(sample.prompt)


def test_a_length_that_is_too_short_is_left_out(words: Tokenizer, told: Any) -> None:
    results = run(["kleval_ruler_cwe"], told(words, lambda request: "x"), max_seq_lengths=[64, 4096])
    assert results["n-samples"]["kleval_ruler_cwe"]["original"] == 2
    with pytest.raises(UsageError, match="does not fit"):
        run(["kleval_ruler_cwe"], told(words, lambda request: "x"), max_seq_lengths=[64])


def test_without_a_tokenizer_it_is_asked_for() -> None:
    with pytest.raises(UsageError, match="name it"):
        manager().load("kleval_ruler_niah_single_1")


@pytest.mark.parametrize(
    ("given", "tokens"),
    [
        (4096, [4096]),
        ("128k,1m", [131072, 1048576]),
        ([1024, "2k", 1024], [1024, 2048]),
        ("2k-8k*2", [2048, 4096, 8192]),
    ],
)
def test_lengths_are_read_as_written(given: Any, tokens: list[int]) -> None:
    from kleval.tasks.lm_eval.generated import lengths

    assert lengths(given) == tokens


@pytest.mark.parametrize("wrong", [{"num_samples": -1}, {"num_samples": 0}, {"num_samples": "few"}, {"seed": 1.5}])
def test_what_is_no_number_of_samples_or_seed_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=f"{next(iter(wrong))} is a whole number"):
        manager(tokenizer="words", **wrong).load("kleval_ruler_vt")


@pytest.mark.parametrize("wrong", ["long", "0", "4x", [None]])
def test_what_is_no_length_is_refused(wrong: Any) -> None:
    from kleval.tasks.lm_eval.generated import lengths

    with pytest.raises(UsageError, match="max_seq_lengths"):
        lengths(wrong)


def test_lm_eval_runs_all_of_ruler_offline_and_writes_its_files(
    llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `lm_eval run --model hf --include_path … --tasks kleval_ruler --log_samples` does, which reads all of its own tasks first."""
    pytest.importorskip("accelerate")
    import huggingface_hub.constants as hub
    from lm_eval import simple_evaluate
    from lm_eval.loggers import EvaluationTracker

    monkeypatch.setattr(hub, "HF_HUB_OFFLINE", True)
    tracker = EvaluationTracker(output_path=str(tmp_path / "out"))
    results = simple_evaluate(
        model="hf",
        model_args={"pretrained": str(llama), "dtype": "float32"},
        tasks=["kleval_ruler"],
        task_manager=manager(pretrained=str(llama), max_seq_lengths=["4k"], num_samples=1),
        device="cpu",
        batch_size=1,
        bootstrap_iters=0,
        evaluation_tracker=tracker,
    )
    samples = results.pop("samples")
    tracker.save_results_aggregated(results, samples)
    tracker.save_results_samples("kleval_ruler_vt", samples["kleval_ruler_vt"])
    tasks = {name for name in results["results"] if name != "kleval_ruler"}
    assert len(tasks) == 13
    assert all("4096,none" in results["results"][name] for name in tasks)
    assert "score,none" in results["groups"]["kleval_ruler"]
    assert len(list((tmp_path / "out").rglob("results_*.json"))) == 1
    assert len(list((tmp_path / "out").rglob("samples_kleval_ruler_vt_*.jsonl"))) == 1
