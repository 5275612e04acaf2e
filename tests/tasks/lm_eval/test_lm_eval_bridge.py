"""A kleval backend as a model of lm-eval, beside lm-eval's own hf backend; and kleval's tasks of lm-eval beside lm-eval."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from kleval.backends.registry import open_backend
from kleval.harness.asking import finish
from kleval.harness.preparing import Asked, Policy
from kleval.tasks.lm_eval.task_index import find
from kleval.tasks.registry import load_task
from kleval.types import Failure, Sample, Tokenizer, UsageError

for package in ("lm_eval", "accelerate", "transformers"):
    pytest.importorskip(package)
CTX = 8192
BBH = ("bbh_zeroshot_navigate", "bbh_zeroshot_boolean_expressions", "bbh_fewshot_web_of_lies")


@pytest.fixture(scope="module")
def hf(llama: Path) -> Any:
    """lm-eval's own backend on the small Llama."""
    from lm_eval.models.huggingface import HFLM

    return HFLM(pretrained=str(llama), dtype="float32", device="cpu", batch_size=1)


@pytest.fixture(scope="module")
def ours(llama: Path) -> Any:
    """kleval's backend on the same."""
    backend = open_backend(str(llama), backend="hf", device="cpu", dtype="float32")
    yield backend
    backend.close()


def evaluate(model: Any, name: str, folder: Path, n: int, shots: int | None = None, **settings: Any) -> Any:
    """lm-eval's results of one of its tasks on local files: settings are those of load_dataset."""
    import yaml
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    task = {"include": str(find(name).file), "task": f"local_{name}", "dataset_name": None, "dataset_path": "json"}
    task |= {"dataset_kwargs": {"cache_dir": str(folder / "cache"), **settings}} | (
        {} if shots is None else {"num_fewshot": shots}
    )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "local.yaml").write_text(yaml.safe_dump(task))
    manager = TaskManager(include_path=str(folder), include_defaults=False)
    return simple_evaluate(model=model, tasks=[f"local_{name}"], limit=n, task_manager=manager, bootstrap_iters=0)


def check(results: Any, name: str, backend: Any, data_dir: Path, n: int, shots: int | None = None) -> None:
    """Prompt, answer and metrics of every sample are lm-eval's."""
    task = load_task(f"lm_eval/{name}" + ("" if shots is None else f":{shots}shot"), "official", data_dir=data_dir)
    made = [s for s in task.samples(backend.tokenizer, CTX, n, 42) if isinstance(s, Sample)]
    found = {
        a.sample.index: (end, a.records)
        for a, end in finish([Asked(task, s, 0) for s in made], backend, None, Policy())
    }
    rows = results["samples"][f"local_{name}"]
    assert {row["doc_id"] for row in rows} == set(found) == set(range(n))
    for row in rows:
        end, records = found[row["doc_id"]]
        sample = made[row["doc_id"]]
        assert row["doc_hash"] == sample.meta["doc_hash"]
        assert row["arguments"][0][0] == sample.prompt
        for (theirs,), record in zip(row["resps"], records, strict=True):
            if isinstance(theirs, str):
                assert theirs == record["text"]
            else:
                assert theirs[0] == pytest.approx(record["logprob_sum"], abs=1e-3)
                assert theirs[1] == record["greedy"]
        for metric in row["metrics"]:
            key = metric if row["filter"] == "none" else f"{metric},{row['filter']}"
            assert end.metrics[key] == row[metric]


def test_gsm8k_with_five_examples_is_lm_evals(hf: Any, ours: Any, real_data: Path, tmp_path: Path) -> None:
    files = {split: str(real_data / "gsm8k" / f"{split}.jsonl") for split in ("train", "test")}
    check(evaluate(hf, "gsm8k", tmp_path, 2, data_files=files), "gsm8k", ours, real_data, 2)


@pytest.mark.parametrize("name", BBH)
def test_bbh_is_lm_evals(name: str, hf: Any, ours: Any, real_data: Path, tmp_path: Path) -> None:
    file = real_data / "bbh" / f"{name.partition('shot_')[2]}.json"
    results = evaluate(hf, name, tmp_path, 2, data_files={"test": str(file)}, field="examples")
    check(results, name, ours, real_data, 2)


@pytest.mark.parametrize(
    ("name", "shape", "shots"),
    [("arc_challenge", "arc", 3), ("winogrande", "winogrande", 2), ("gpqa_diamond_zeroshot", "gpqa", None)],
)
def test_choices_are_lm_evals(
    name: str, shape: str, shots: int | None, hf: Any, ours: Any, data: Any, tmp_path: Path
) -> None:
    files = {split: str(path) for split, path in getattr(data, shape)().items()}
    check(evaluate(hf, name, tmp_path, 4, shots, data_files=files), name, ours, data.folder, 4, shots)


@pytest.mark.parametrize(
    ("name", "shape"), [("winogrande", "winogrande"), ("gsm8k", "gsm8k"), ("lambada_openai", "lambada")]
)
def test_the_bridge_gives_what_lm_evals_backend_gives(
    name: str, shape: str, hf: Any, ours: Any, data: Any, tmp_path: Path
) -> None:
    from kleval.tasks.lm_eval.bridge import KlevalLM

    files = {split: str(path) for split, path in getattr(data, shape)().items()}
    theirs, mine = (evaluate(model, name, tmp_path, 3, data_files=files) for model in (hf, KlevalLM(ours)))
    for one, other in zip(theirs["samples"][f"local_{name}"], mine["samples"][f"local_{name}"], strict=True):
        assert one["prompt_hash"] == other["prompt_hash"]
        for (a,), (b,) in zip(one["resps"], other["resps"], strict=True):
            assert a == b if isinstance(a, str) else a[0] == pytest.approx(b[0], abs=1e-3)


def test_rolling_likelihoods_are_those_of_lm_evals_backend(hf: Any, ours: Any) -> None:
    from lm_eval.api.instance import Instance

    from kleval.tasks.lm_eval.bridge import KlevalLM

    class Short(KlevalLM):
        max_length = 16

    texts = ["the cat runs", "a big red house by the river because the moon is cold and the ship is glass " * 2]
    asked = [Instance("loglikelihood_rolling", {}, (text,), 0) for text in texts]
    hf._max_length = 16
    try:
        theirs = hf.loglikelihood_rolling(asked)
    finally:
        hf._max_length = None
    assert Short(ours).loglikelihood_rolling(asked) == pytest.approx(theirs, abs=1e-3)


def test_a_chat_template_is_applied_as_transformers_does(chat_llama: Path, told: Any, tiny_chat: Tokenizer) -> None:
    import transformers

    from kleval.tasks.lm_eval.bridge import KlevalLM

    lm = KlevalLM(told(tiny_chat, lambda request: ""))
    theirs = transformers.AutoTokenizer.from_pretrained(str(chat_llama))
    turns = [{"role": "user", "content": "a?"}, {"role": "assistant", "content": "It is"}]
    assert lm.apply_chat_template(turns[:1]) == theirs.apply_chat_template(
        turns[:1], tokenize=False, add_generation_prompt=True
    )
    assert lm.apply_chat_template(turns, add_generation_prompt=False).endswith("<assistant>It is")


def test_a_failure_is_raised_and_never_an_answer(words: Tokenizer, told: Any) -> None:
    from kleval.tasks.lm_eval.bridge import AnswerFailed

    lm, instance = bridge(told(words, lambda request: Failure("server", "down"))), generating()
    with pytest.raises(AnswerFailed, match=r"server.*down"):
        lm.generate_until([instance])


def test_what_may_pass_is_asked_again(words: Tokenizer, told: Any) -> None:
    answers = iter([Failure("timeout", "slow", retryable=True), "fine"])
    assert bridge(told(words, lambda request: next(answers))).generate_until([generating()]) == ["fine"]


def test_settings_that_no_backend_follows_are_refused(words: Tokenizer, told: Any) -> None:
    with pytest.raises(UsageError, match="num_beams"):
        bridge(told(words, lambda request: "")).generate_until([generating(num_beams=4)])


def test_sampled_repeats_have_seeds_of_their_own(words: Tokenizer, told: Any) -> None:
    backend = told(words, lambda request: "x")
    bridge(backend).generate_until([generating(do_sample=True, temperature=0.7)] * 3)
    assert len({request.seed for request in backend.asked}) == 3
    assert {request.temperature for request in backend.asked} == {0.7}


def test_likelihoods_that_a_backend_does_not_give_are_told(words: Tokenizer, told: Any) -> None:
    from lm_eval.api.instance import Instance

    lm = bridge(told(words, lambda request: "text"))
    with pytest.raises(UsageError, match="gives no likelihoods"):
        lm.loglikelihood([Instance("loglikelihood", {}, ("a", " b"), 0)])


def bridge(backend: Any) -> Any:
    from kleval.tasks.lm_eval.bridge import KlevalLM

    return KlevalLM(backend, retry_seconds=0.0)


def generating(**settings: Any) -> Any:
    from lm_eval.api.instance import Instance

    return Instance("generate_until", {}, ("a b c", {"until": ["\n"], "max_gen_toks": 3, **settings}), 0)


def test_log_probabilities_are_finite(ours: Any) -> None:
    from lm_eval.api.instance import Instance

    from kleval.tasks.lm_eval.bridge import KlevalLM

    pairs = KlevalLM(ours).loglikelihood([Instance("loglikelihood", {}, ("", "the cat"), 0)])
    assert all(math.isfinite(logprob) and logprob < 0 for logprob, _ in pairs)
