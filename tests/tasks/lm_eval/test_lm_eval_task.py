"""lm-eval's tasks as kleval's: samples, requests, scores, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kleval.harness.asking import finish
from kleval.harness.preparing import Asked, Policy
from kleval.tasks.data import MissingData
from kleval.tasks.registry import load_task
from kleval.types import Completion, Sample, Score, Task, Tokenizer, Unfit, UsageError

pytest.importorskip("lm_eval")
BIG = 100_000


def samples(task: Task, tokenizer: Tokenizer, n: int = 4, ctx: int = BIG) -> list[Sample]:
    return [made for made in task.samples(tokenizer, ctx, n, 42) if isinstance(made, Sample)]


def ends(task: Task, made: list[Sample], backend: Any) -> list[Any]:
    found = {
        asked.sample.index: end for asked, end in finish([Asked(task, s, 0) for s in made], backend, None, Policy())
    }
    return [found[s.index] for s in made]


def test_documents_come_in_lm_evals_order_with_its_hashes(data: Any, words: Tokenizer) -> None:
    from lm_eval.utils import hash_string

    data.gsm8k()
    made = samples(load_task("lm_eval/gsm8k", "official", data_dir=data.folder), words)
    assert [s.meta["doc_id"] for s in made] == [0, 1, 2, 3]
    assert all(len(s.meta["doc_hash"]) == len(hash_string("")) for s in made)
    assert [s.references[0].rpartition(" ")[2] for s in made] == ["0", "1", "2", "3"]


def test_a_sample_does_not_depend_on_how_many_are_made(data: Any, words: Tokenizer) -> None:
    data.gsm8k()
    few = samples(load_task("lm_eval/gsm8k", "official", data_dir=data.folder), words, 2)
    many = samples(load_task("lm_eval/gsm8k", "official", data_dir=data.folder), words, 6)
    assert [(s.id, s.prompt) for s in few] == [(s.id, s.prompt) for s in many[:2]]


def test_a_task_asked_twice_gives_the_same(data: Any, words: Tokenizer) -> None:
    data.gsm8k()
    task = load_task("lm_eval/gsm8k", "official", data_dir=data.folder)
    assert samples(task, words) == samples(task, words)


def test_prompts_as_messages_and_as_text_have_the_same_examples(
    data: Any, words: Tokenizer, tiny_chat: Tokenizer
) -> None:
    data.gsm8k()
    task = load_task("lm_eval/gsm8k", "official", data_dir=data.folder)
    mixed = [samples(task, tokenizer, n)[-1] for n in (2, 4) for tokenizer in (words, tiny_chat)]
    for text, messages in zip(mixed[::2], mixed[1::2], strict=True):
        assert isinstance(text.prompt, str)
        questions = [m["content"] for m in messages.prompt if m["role"] == "user"]  # type: ignore[union-attr, index]
        places = [text.prompt.index(question) for question in questions]
        assert len(questions) == 6
        assert places == sorted(places)


def test_plain_is_text_whatever_the_tokenizer(data: Any, tiny_chat: Tokenizer) -> None:
    data.gsm8k()
    task = load_task("lm_eval/gsm8k", "official", "lm-eval-0.4.13-plain", data.folder)
    assert all(isinstance(s.prompt, str) for s in samples(task, tiny_chat))


@pytest.mark.parametrize("shots", [0, 2])
def test_shots_are_those_asked_for(data: Any, words: Tokenizer, shots: int) -> None:
    data.gsm8k()
    made = samples(load_task(f"lm_eval/gsm8k:{shots}shot", "official", data_dir=data.folder), words, 1)
    assert str(made[0].prompt).count("Question:") == shots + 1


def test_more_examples_than_there_are_is_one_line(data: Any) -> None:
    data.gsm8k()
    there = len((data.folder / "gsm8k/train.jsonl").read_text("utf-8").splitlines())
    load_task(f"lm_eval/gsm8k:{there}shot", "official", data_dir=data.folder)
    with pytest.raises(UsageError, match=rf"has {there} examples to draw from, not {there + 1}: write"):
        load_task(f"lm_eval/gsm8k:{there + 1}shot", "official", data_dir=data.folder)


def test_what_does_not_fit_is_passed_over_and_never_cut(data: Any, words: Tokenizer) -> None:
    data.gsm8k()
    task = load_task("lm_eval/gsm8k:0shot", "official", data_dir=data.folder)
    lengths = [s.prompt_tokens + s.max_new_tokens for s in samples(task, words, 8)]
    ctx = sorted(lengths)[3]
    made = list(task.samples(words, ctx, 8, 42))
    assert [isinstance(one, Unfit) for one in made] == [length > ctx for length in lengths]
    assert [one.minimum_tokens for one in made if isinstance(one, Unfit)] == [n for n in lengths if n > ctx]


def test_a_generated_answer_goes_through_every_filter(data: Any, words: Tokenizer, told: Any) -> None:
    data.gsm8k()
    task = load_task("lm_eval/gsm8k", "official", data_dir=data.folder)
    made = samples(task, words, 3)
    answers = iter(["so #### 0", "it is 1.", "no idea"])
    backend = told(words, lambda request: next(answers))
    found = sorted((dict(end.metrics) for end in ends(task, made, backend)), key=str)
    strict, flexible = "exact_match,strict-match", "exact_match,flexible-extract"
    assert task.metric == strict
    assert sum(f[strict] for f in found) == 1
    assert backend.asked[0].stop == ("Question:", "</s>", "<|im_end|>")
    assert (backend.asked[0].temperature, backend.asked[0].max_new_tokens) == (0.0, 256)
    assert all(set(f) == {strict, flexible} for f in found)


def test_choices_are_likelihoods(data: Any, words: Tokenizer, told: Any) -> None:
    data.arc()
    task = load_task("lm_eval/arc_challenge", "official", data_dir=data.folder)
    made = samples(task, words)

    def right(request: Any) -> tuple[float, bool]:
        sample = next(s for s in made if s.prompt == request.prompt)
        return (-1.0 if request.continuation == " " + sample.references[0] else -50.0), False

    backend = told(words, right)
    assert [end.metrics for end in ends(task, made, backend)] == [{"acc": 1.0, "acc_norm": 1.0}] * 4
    assert task.metric == "acc_norm"
    assert len(backend.asked) == 16
    assert {request.kind for request in backend.asked} == {"loglikelihood"}


def test_inputs_that_differ_share_what_follows(data: Any, words: Tokenizer) -> None:
    data.winogrande()
    task = load_task("lm_eval/winogrande:2shot", "official", data_dir=data.folder)
    sample = samples(task, words, 1)[0]
    first, second = task.step(sample, ())  # type: ignore[misc]
    assert first.prompt != second.prompt
    assert first.continuation == second.continuation


def test_several_answers_are_asked_for_where_filters_want_them(data: Any, words: Tokenizer) -> None:
    data.gsm8k()
    task = load_task("lm_eval/gsm8k_cot_self_consistency", "official", data_dir=data.folder)
    sample = samples(task, words, 1)[0]
    requests = task.step(sample, ())
    assert isinstance(requests, list)
    assert len(requests) == 64
    assert requests[0].temperature == pytest.approx(0.2)
    texts = ["The answer is 5."] * 20 + ["The answer is 0."] * 44
    score = task.step(sample, [Completion(text, 1, 1) for text in texts])
    assert isinstance(score, Score)
    assert score.metrics["exact_match,maj@64"] == 1.0
    assert score.metrics["exact_match,maj@8"] == 0.0


def test_one_answer_is_asked_for_where_the_others_are_not_looked_at(data: Any, words: Tokenizer) -> None:
    data.gsm8k()
    task = load_task("lm_eval/gsm8k", "official", data_dir=data.folder)
    assert len(task.step(samples(task, words, 1)[0], ())) == 1  # type: ignore[arg-type]


def test_metrics_that_are_no_mean_are_left_out_and_said(data: Any, words: Tokenizer) -> None:
    data.lambada()
    task: Any = load_task("lm_eval/lambada_openai", "official", data_dir=data.folder)
    assert task.metric == "acc"
    assert task.card()["left_out"] == ["perplexity"]


def test_examples_that_are_not_needed_may_be_missing(data: Any, words: Tokenizer) -> None:
    data.gsm8k()["train"].unlink()
    assert samples(load_task("lm_eval/gsm8k:0shot", "official", data_dir=data.folder), words)
    with pytest.raises(MissingData, match="lm_eval/gsm8k:0shot does without"):
        load_task("lm_eval/gsm8k", "official", data_dir=data.folder)


def test_the_card_says_where_everything_comes_from(data: Any) -> None:
    data.gsm8k()
    card = load_task("lm_eval/gsm8k:8shot", "official", data_dir=data.folder).card()  # type: ignore[attr-defined]
    assert card["protocol"] == "lm-eval-0.4.13"
    assert (card["shots"], card["data"]) == (8, "openai/gsm8k main")
    assert any("on the left" in deviation for deviation in card["deviations"])


def test_data_of_another_shape_are_told(data: Any) -> None:
    data.write("gsm8k/test.jsonl", [{"prompt": "?"}])
    data.write("gsm8k/train.jsonl", [{"prompt": "?"}])
    with pytest.raises(UsageError, match="the data given are not what it expects"):
        load_task("lm_eval/gsm8k", "official", data_dir=data.folder)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("humaneval_plus", "use code/humaneval_plus"),
        ("mbpp", "use code/mbpp_plus"),
        ("cruxeval_output_cot", "use code/cruxeval_output_cot"),
        ("wikitext", "KlevalLM"),
        ("squadv2", "KlevalLM"),
        ("niah_single_1", "use ruler/niah_single_1"),
        ("bbh", "name one of them"),
        ("hellaswag", "kleval data fetch lm_eval/hellaswag"),
        ("bbh_zeroshot_navigate:3shot", "takes no examples"),
    ],
)
def test_what_cannot_be_asked_says_what_to_do(name: str, said: str, data: Any) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        load_task(f"lm_eval/{name}", "official", data_dir=data.folder)
    assert "\n" not in str(caught.value)


def test_a_package_that_is_missing_is_named(data: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "math_verify", None)
    data.write(
        "hendrycks_math/algebra/test.jsonl", [{"problem": "?", "solution": r"\boxed{1}", "level": "1", "type": "a"}]
    )
    data.write(
        "hendrycks_math/algebra/train.jsonl", [{"problem": "?", "solution": r"\boxed{1}", "level": "1", "type": "a"}]
    )
    with pytest.raises(UsageError, match=r"pip install 'lm-eval\[math\]'"):
        load_task("lm_eval/minerva_math_algebra", "official", data_dir=data.folder)


def test_the_random_generators_of_the_process_are_left_alone(data: Any) -> None:
    import random

    data.gpqa()
    random.seed(5)
    expected = random.random()
    random.seed(5)
    load_task("lm_eval/gpqa_diamond_zeroshot", "official", data_dir=data.folder)
    assert random.random() == expected


def test_choices_are_scored_in_the_order_in_which_they_are_asked(data: Any, words: Tokenizer) -> None:
    """lm-eval 0.4.13 shuffles those of GPQA again for scoring."""
    rows = [json.loads(line) for line in data.gpqa(12)["train"].read_text().splitlines()]
    task = load_task("lm_eval/gpqa_diamond_n_shot:5shot", "official", data_dir=data.folder)
    for sample in samples(task, words, 6):
        asked = str(sample.prompt).rpartition("Question: ")[2]
        assert f"{sample.references[0]} {rows[sample.index]['Correct Answer']}\n" in asked


def test_a_task_does_not_depend_on_what_was_loaded_before(data: Any, words: Tokenizer) -> None:
    data.gpqa(12)
    name = "lm_eval/gpqa_diamond_n_shot:5shot"
    first, second = (samples(load_task(name, "official", data_dir=data.folder), words, 6) for _ in range(2))
    assert first == second


def test_loading_leaves_the_hub_reachable(data: Any) -> None:
    import huggingface_hub.constants as hub

    before = hub.HF_HUB_OFFLINE
    data.gsm8k()
    load_task("lm_eval/gsm8k", "official", data_dir=data.folder)
    assert before == hub.HF_HUB_OFFLINE


def test_the_builtin_edition_is_kleval_s_own() -> None:
    task = load_task("lm_eval/gsm8k", "builtin")
    assert (task.id, task.edition, task.protocol) == ("lm_eval/gsm8k", "builtin", "kleval-1")


def test_without_a_builtin_edition_the_official_one_is_named() -> None:
    with pytest.raises(UsageError, match="--edition official"):
        load_task("lm_eval/piqa", "builtin")
