"""Paired likelihood: which prompt is the question alone, which text is scored where, and what becomes of the log-probabilities."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kleval.tasks.likelihood import Likelihood, between, inner, without
from kleval.tasks.registry import load_task, loader
from kleval.types import Completion, Failure, Sample, Score, Task, Tokenizer, Unfit, UsageError

EVERY = (
    *(f"ruler/{name}" for name in ("niah_single_1", "niah_multivalue", "vt", "cwe", "fwe")),
    *("mrcr/2needle", "mrcr_v2/2needle", "longbench2/mcq", "helmet_icl/trec_coarse", "lca/lib", "lca/commit"),
    *("babilong/qa1", "graphwalks/bfs", "graphwalks/parents", "synthetic/mqar", "synthetic/stack"),
    *(pytest.param(name, marks=pytest.mark.slow) for name in ("ruler/qa_2", "frames/oracle", "repoqa/snf")),
)


def first(task: Task, tokenizer: Tokenizer, ctx: int = 1024) -> Sample:
    (sample,) = task.samples(tokenizer, ctx, 1, 42)
    assert isinstance(sample, Sample)
    return sample


def text_of(prompt: object) -> str:
    return prompt if isinstance(prompt, str) else prompt[-1]["content"]  # type: ignore[index]


@pytest.mark.parametrize("name", EVERY)
def test_every_long_family_knows_its_question_without_the_context(name: str, words: Tokenizer) -> None:
    sample = first(load_task(name, protocol="likelihood"), words)
    whole, alone = text_of(sample.prompt), text_of(sample.meta["question_alone"])
    assert words.count(alone) < 0.8 * sample.prompt_tokens
    assert whole.endswith(alone[-12:])
    asked = load_task(name).step(sample, ())
    assert sample.prompt == asked[0].prompt  # type: ignore[index, union-attr]


def test_an_edge_list_of_an_older_row_is_found_whatever_blank_lines_it_has(words: Tokenizer) -> None:
    task: Any = load_task("graphwalks/parents")
    (sample,) = task.samples(words, 2048, 1, 42)
    older = text_of(sample.prompt).replace("\n\n\nOperation:", "\nOperation:").replace("exactly at", "at")
    alone = text_of(task.question_alone(replace(sample, prompt=older)))
    assert alone.count(" -> ") == 4, "those of the example"
    assert alone.partition("graph to operate on:\n")[2].startswith("The graph has the following edges:\nOperation:\n")


@pytest.mark.parametrize("name", ["palindrome", "mqar", "stack"])
def test_parts_in_an_order_are_one_text(name: str, words: Tokenizer) -> None:
    task = load_task(f"synthetic/{name}", protocol="likelihood")
    sample = first(task, words)
    known, bare = task.step(sample, ())  # type: ignore[misc]
    joined = (", " if name == "mqar" else " ").join(sample.references)
    assert known.continuation == bare.continuation == f" {joined}"  # type: ignore[union-attr]
    assert not any(f"{item}\n" in text_of(bare.prompt) for item in text_of(sample.prompt).split("\n")[2:4])  # type: ignore[union-attr]


@given(head=st.text(alphabet="ab\n", max_size=6), context=st.text(alphabet="ab\n<", max_size=30), tail=st.text("ab\n"))
def test_what_is_left_does_not_depend_on_the_context(head: str, context: str, tail: str) -> None:
    template = "{name} reads:\n<text>\n{context}\n</text>\n\n{question}"
    made = template.format(name=head, context=context, question=tail)
    assert without(made, template, "{context}") == template.format(name=head, context="", question=tail)


def test_a_solved_example_of_the_same_form_stays() -> None:
    one = "list:\n{context}\nwhich?"
    shown = one.format(context="a a b") + " a\n"
    assert without(shown + one.format(context="c d d"), one, "{context}", demonstrated=True) == shown + one.format(
        context=""
    )


def test_a_prompt_of_another_form_has_no_question_alone() -> None:
    with pytest.raises(ValueError, match="not of its template's form"):
        without("something else", "{context}\nwhich?", "{context}")


def test_a_blank_stands_between_a_word_and_an_answer_only(words: Tokenizer) -> None:
    user = ({"role": "user", "content": "which?"},)
    assert [
        between(*case, words) for case in (("which?", ""), ("which?\n", ""), ("which?", "it is"), ("x", "is "))
    ] == [*(" ", "", " ", "")]
    assert between(user, "", words) == " "  # without a template the messages are text
    assert between(user, "it is", words) == " "


class Templated:
    chat_template_digest = "1"


def test_an_assistants_message_begins_with_the_reference() -> None:
    user = ({"role": "user", "content": "which?"},)
    assert between(user, "", Templated()) == ""  # type: ignore[arg-type]


class Asked:
    """A task of the user's, with the references that a test gives it."""

    id, version, metric, edition, protocol = "own/asked", "1", "exact", "own", "own-1"
    data_revision, data_digest = "generated", ""

    def __init__(self, *references: str) -> None:
        self._references = references

    def samples(self, tokenizer: Tokenizer, ctx: int, n: int, seed: int) -> Iterator[Sample | Unfit]:
        yield Sample("own/asked/i0", self.id, ctx, 0, "long text. who?", self._references, 8, 3)

    def step(self, sample: Sample, outcomes: object) -> Score:
        raise AssertionError

    def question_alone(self, sample: Sample) -> str:
        return "who?"


def scored(task: Likelihood, words: Tokenizer, *told: tuple[float, int]) -> Score | Failure:
    """told: the log-probability and the tokens of each request."""
    sample = first(task, words)  # type: ignore[arg-type]
    found = task.step(sample, [Completion("", 3, n, logprob_sum=logprob) for logprob, n in told])
    assert isinstance(found, Score | Failure)
    return found


def test_each_reference_is_asked_behind_the_prompt_and_behind_the_question(words: Tokenizer) -> None:
    task = Likelihood(Asked("Ada", "Ada L."))
    requests = task.step(first(task, words), ())  # type: ignore[arg-type]
    told = [(request.prompt, request.continuation) for request in requests]  # type: ignore[union-attr]
    assert told == [("long text. who?", " Ada"), ("long text. who?", " Ada L."), ("who?", " Ada"), ("who?", " Ada L.")]


def test_the_gain_is_the_difference_over_all_tokens(words: Tokenizer) -> None:
    found = scored(Likelihood(Asked("Ada", "Ada L.")), words, (-1.0, 2), (-3.0, 4), (-5.0, 2), (-10.0, 4))
    assert isinstance(found, Score)
    assert found.metrics["gain"] == pytest.approx((-4.0 + 15.0) / 6)
    assert found.metrics["gain"] == pytest.approx(found.metrics["nll_question"] - found.metrics["nll_context"])
    assert [one["gain"] for one in found.extracted["references"]] == pytest.approx([2.0, 7 / 4])
    assert (found.extracted["tokens"], found.extracted["logprob_context"]) == (6, -4.0)


@pytest.mark.parametrize("n", [1, 7, 500])
def test_a_gain_does_not_grow_with_the_reference(n: int, words: Tokenizer) -> None:
    found = scored(Likelihood(Asked("x " * n)), words, (-0.25 * n, n), (-2.0 * n, n))
    assert isinstance(found, Score)
    assert math.isclose(found.metrics["gain"], 1.75)


def test_a_reference_of_other_tokens_behind_the_question_is_a_failure(words: Tokenizer) -> None:
    found = scored(Likelihood(Asked("Ada")), words, (-1.0, 2), (-5.0, 3))
    assert isinstance(found, Failure)
    assert "2 tokens behind the prompt and 3 behind the question alone" in found.message


@pytest.mark.parametrize("name", ["short/cmath", "code/humaneval_plus"])
def test_a_task_without_a_context_says_so_in_one_line(name: str) -> None:
    with pytest.raises(UsageError, match=f"{name} has no context apart from its question") as error:
        load_task(name, protocol="likelihood")
    assert "\n" not in str(error.value)


class Unsaid(Asked):
    question_alone = None  # type: ignore[assignment]


def test_a_task_that_does_not_say_its_question_alone_is_told_how() -> None:
    with pytest.raises(UsageError, match="own/asked does not say what its question is without a context") as error:
        Likelihood(Unsaid())
    assert "\n" not in str(error.value)


def test_a_sample_without_a_reference_is_refused(words: Tokenizer) -> None:
    with pytest.raises(UsageError, match="has no reference text"):
        first(Likelihood(Asked("")), words)  # type: ignore[arg-type]


def test_likelihood_goes_with_a_protocol_of_the_tasks(tmp_path: Path) -> None:
    load = loader(["helmet_icl/nlu", "frames/oracle"], protocol="likelihood,helmet-4526dfb-chat")
    assert load("helmet_icl/nlu").protocol == "likelihood-1:helmet-4526dfb-chat"
    assert load("frames/oracle").protocol == "likelihood-1:exact-match"


def test_a_stored_protocol_loads_the_same_task() -> None:
    task = load_task("mrcr/2needle", protocol="likelihood")
    assert load_task("mrcr/2needle", protocol=task.protocol).protocol == task.protocol
    assert inner("likelihood-of-something") is None
    with pytest.raises(UsageError, match="there is likelihood-1"):
        inner("likelihood-7:openai")


def test_a_judge_is_not_needed_for_references(tmp_path: Path) -> None:
    assert load_task("frames/oracle", protocol="judge").needs_judge is True  # type: ignore[attr-defined]
    assert load_task("frames/oracle", protocol="likelihood:judge").needs_judge is False  # type: ignore[attr-defined]


def plain(folder: Path, form: str) -> str:
    (folder / "rows.jsonl").write_text(
        json.dumps({"context": "Ada wrote it.", "q": "Who wrote it?", "a": "Ada"}) + "\n"
    )
    (folder / "my.yaml").write_text(f'data: rows.jsonl\nanswer: "{{a}}"\n{form}')
    return str(folder / "my.yaml")


@pytest.mark.parametrize(
    ("form", "alone"),
    [
        ('prompt: "{context}\\n\\n{q}"', "\n\nWho wrote it?"),
        ('prompt: "{context}\\n\\n{q}"\nquestion: "{q}"', "Who wrote it?"),
    ],
    ids=["without {context}", "as the file says"],
)
def test_a_plain_task_of_the_users_has_one_too(form: str, alone: str, tmp_path: Path, words: Tokenizer) -> None:
    sample = first(load_task(plain(tmp_path, form), protocol="likelihood"), words)
    assert (sample.prompt, sample.meta["question_alone"]) == ("Ada wrote it.\n\nWho wrote it?", alone)


def test_a_plain_task_that_does_not_say_its_context_is_refused_in_one_line(tmp_path: Path, words: Tokenizer) -> None:
    with pytest.raises(UsageError, match="has no field question") as error:
        first(load_task(plain(tmp_path, 'prompt: "{q}"'), protocol="likelihood"), words)
    assert "\n" not in str(error.value)
