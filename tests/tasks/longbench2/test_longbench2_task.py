"""The task longbench2/mcq in both editions and both protocols."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from kleval.tasks.longbench2.exams import DOMAINS
from kleval.tasks.longbench2.task import COT, PROTOCOL, SHARES, LongBench2Task, kind_of
from kleval.tasks.registry import expand, load_task
from kleval.types import Completion, ContextTooSmall, Request, Sample, Score, Tokenizer, Unfit, UsageError


def task(edition: str = "builtin", protocol: str | None = None, data_dir: Path | None = None) -> LongBench2Task:
    loaded = load_task("longbench2/mcq", edition, protocol, data_dir)
    assert isinstance(loaded, LongBench2Task)
    return loaded


def made(one: LongBench2Task, tokenizer: Tokenizer, ctx: int, n: int, seed: int = 0) -> list[Sample]:
    return [sample for sample in one.samples(tokenizer, ctx, n, seed) if isinstance(sample, Sample)]


def asked(one: LongBench2Task, sample: Sample, *said: str) -> Request:
    step = one.step(sample, [Completion(text, 0, 0) for text in said])
    assert not isinstance(step, Score)
    (request,) = step
    return request


def scored(one: LongBench2Task, sample: Sample, *said: str) -> dict[str, float]:
    step = one.step(sample, [Completion(text, 0, 0) for text in said])
    assert isinstance(step, Score)
    return dict(step.metrics)


def read_question(text: str) -> tuple[str, str, dict[str, str]]:
    """Document, question and choices of a prompt."""
    document = text.partition("<text>\n")[2].partition("\n</text>")[0]
    question = text.partition("correct answer to this question: ")[2].partition("\nChoices:\n")[0]
    return document, question, dict(re.findall(r"^\(([A-D])\) (.*)$", text.partition("Choices:\n")[2], re.MULTILINE))


def one(pattern: str, text: str) -> str:
    found = re.findall(pattern, text, re.MULTILINE)
    assert len(found) == 1, (pattern, found)
    return str(found[0])


def solve(domain: str, document: str, question: str, choices: dict[str, str]) -> str:
    """The right choice's letter, from what the model sees alone."""
    quoted = re.findall(r'"([^"]*)"', question)
    if domain == "Single-Document QA":
        teacher = re.search(r"whom (\w+) had taught", question)
        giver = (
            one(rf"^{teacher[1]} taught (\w+)\.$", document) if teacher else re.findall(r"did (\w+) give", question)[0]
        )
        right = one(rf"^{giver} gave (.+) to the \w+\.$", document)
    elif domain == "Multi-Document QA":
        town = re.search(r"notice from (\w+) ask for the (.*)\?", question)
        if town:
            right = one(rf"^Notice from {town[1]}\n.*called the {town[2]}, for (\d+) crowns", document)
        else:
            item = re.findall(r"for the (.*)\?", question)[0]
            prices = re.findall(rf"^Notice from (\w+)\n.*called the {item}, for (\d+) crowns", document, re.MULTILINE)
            right = min(prices, key=lambda pair: int(pair[1]))[0]
    elif domain == "Long In-context Learning":
        if "mean" in question:
            right = one(rf"^{quoted[0]} = (.*)$", document)
        else:
            _, quality, noun = quoted[0].split()
            right = f"{one(rf'^(.*) = {noun}$', document)} {one(rf'^(.*) = {quality}$', document)}"
    elif domain == "Long-dialogue History Understanding":
        parcel = re.findall(r"parcel (\w+)", question)[0]
        right = "In the " + re.findall(rf"I put parcel {parcel} in the (\w+)\.", document)[-1]
    elif domain == "Code Repository Understanding":
        space: dict[str, Any] = {}
        exec(compile(document.partition("\n\n")[2], "sample", "exec"), space)  # noqa: S102
        right = str(eval(re.findall(r"does (.*) return", question)[0], space))  # noqa: S307
    else:
        table = {name: int(amount) for name, _, amount in (line.split(",") for line in document.split("\n")[1:])}
        name = re.search(r"amount of (\w+)\?", question)
        right = str(table[name[1]]) if name else max(choices.values(), key=table.__getitem__)
    (letter,) = [letter for letter, choice in choices.items() if choice == right]
    return letter


@pytest.mark.parametrize("ctx", [1024, 16384])
def test_an_oracle_that_reads_the_document_gets_full_marks(ctx: int, words: Tokenizer) -> None:
    mcq = task()
    for sample in made(mcq, words, ctx, 72):
        letter = solve(sample.meta["domain"], *read_question(words.render(sample.prompt)))
        metrics = scored(mcq, sample, f"The correct answer is ({letter}).")
        assert metrics.pop("empty") == 0
        assert set(metrics.values()) == {1.0}


def test_references_are_full_marks_and_empty_answers_are_wrong(words: Tokenizer) -> None:
    mcq = task()
    for sample in made(mcq, words, 2048, 12):
        assert scored(mcq, sample, sample.references[0])["accuracy"] == 1
        empty = scored(mcq, sample, "")
        assert (empty["accuracy"], empty["empty"]) == (0, 1)
        assert math.isnan(empty["accuracy of non-empty"])
        assert scored(mcq, sample, "  \n")["accuracy of non-empty"] == 0


def test_answers_to_other_questions_are_at_chance(words: Tokenizer) -> None:
    mcq = task()
    samples = made(mcq, words, 1024, 120)
    shifted = [scored(mcq, a, b.references[0])["accuracy"] for a, b in pairwise(samples)]
    assert 0.1 < sum(shifted) / len(shifted) < 0.4
    assert min(Counter(s.meta["answer"] for s in samples).values()) > 15


def test_every_domain_comes_with_every_length_and_difficulty() -> None:
    kinds = Counter(kind_of(i) for i in range(36))
    assert len(kinds) == len(DOMAINS) * 3 * 2
    assert [kind_of(i)[0] for i in range(6)] == list(DOMAINS)


@pytest.mark.parametrize("protocol", [PROTOCOL, COT])
@pytest.mark.parametrize("ctx", [1024, 4096, 65536])
def test_ctx_holds_prompt_and_answer_and_long_ones_use_it(ctx: int, protocol: str, tiny_bpe: Tokenizer) -> None:
    for sample in made(task(protocol=protocol), tiny_bpe, ctx, 7):
        assert sample.prompt_tokens == tiny_bpe.count(tiny_bpe.render(sample.prompt))
        used = sample.prompt_tokens + sample.max_new_tokens
        assert used <= ctx
        if sample.meta["length"] == "long":
            assert used > 0.85 * ctx
        elif ctx > 4096:
            assert used <= ctx * SHARES[sample.meta["length"]]


def test_a_sample_does_not_depend_on_those_before_it(words: Tokenizer) -> None:
    busy = task()
    made(busy, words, 1024, 2, seed=9)
    assert made(busy, words, 4096, 3) == made(task(), words, 4096, 8)[:3]


def test_seeds_and_samples_differ(words: Tokenizer) -> None:
    samples = [*made(task(), words, 2048, 9), *made(task(), words, 2048, 9, seed=1)]
    assert len({s.prompt_hash for s in samples}) == len({s.id for s in samples}) == 18


def test_a_known_sample_stays_what_it_is(words: Tokenizer) -> None:
    sample = made(task(), words, 1024, 1)[0]
    assert sample.prompt_hash == "0f6926dcfdbd05060733f5e77c985fe7388b226a3d6b66ecb70e80b7c5b3feb0"


@pytest.mark.parametrize("protocol", [PROTOCOL, COT])
def test_too_small_a_context_names_one_that_is_enough(protocol: str, words: Tokenizer) -> None:
    with pytest.raises(ContextTooSmall) as error:
        made(task(protocol=protocol), words, 64, 1)
    assert error.value.minimum_tokens > 64
    assert made(task(protocol=protocol), words, 3 * error.value.minimum_tokens, 1)


def test_chain_of_thought_asks_twice_and_the_second_time_without_the_document(words: Tokenizer) -> None:
    cot = task(protocol=COT)
    sample = made(cot, words, 4096, 1)[0]
    first = asked(cot, sample)
    second = asked(cot, sample, "  I think so.\n")
    assert first.prompt == sample.prompt
    assert isinstance(second.prompt, str)
    assert "Let\u2019s think step by step: I think so.\n\nBased on the above" in second.prompt
    assert "<text>" not in second.prompt
    assert words.count(second.prompt) + second.max_new_tokens < sample.ctx
    assert scored(cot, sample, "I think so.", sample.references[0])["accuracy"] == 1
    assert (
        scored(
            cot,
            sample,
            "",
        )["empty"]
        == 1
    )
    assert scored(cot, sample, "I think so.", "")["empty"] == 1


def test_chain_of_thought_stays_a_message_where_there_is_a_chat_template(chatting: Tokenizer) -> None:
    cot = task(protocol=COT)
    sample = made(cot, chatting, 8192, 1)[0]
    for said in ((), ("so",)):
        prompt = asked(cot, sample, *said).prompt
        assert not isinstance(prompt, str)
        assert [message["role"] for message in prompt] == ["user"]


def write(folder: Path, rows: list[dict[str, Any]], suffix: str = ".json") -> Path:
    path = folder / f"data{suffix}"
    if suffix == ".parquet":
        pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
        parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    elif suffix == ".json":
        path.write_text(json.dumps(rows), encoding="utf-8")
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.mark.parametrize("suffix", [".json", ".jsonl", ".parquet"])
def test_the_official_edition_asks_in_order_at_the_official_temperature(
    suffix: str, tmp_path: Path, rows: list[dict[str, Any]], characters: Tokenizer
) -> None:
    write(tmp_path, rows, suffix)
    mcq = task("official", None, tmp_path)
    samples = made(mcq, characters, 100_000, 10)
    assert [s.meta["row"] for s in samples] == [row["_id"] for row in rows]
    assert [s.meta["removed_tokens"] for s in samples] == [0] * len(rows)
    assert {(s.max_new_tokens, asked(mcq, s).temperature) for s in samples} == {(128, 0.1)}
    metrics = scored(mcq, samples[1], samples[1].references[0])
    assert metrics["accuracy hard"] == metrics["accuracy medium"] == metrics["accuracy"] == 1
    assert "accuracy easy" not in metrics


def test_the_official_middle_is_cut_to_ctx_and_recorded(
    tmp_path: Path, rows: list[dict[str, Any]], characters: Tokenizer, chatting: Tokenizer
) -> None:
    write(tmp_path, rows)
    for tokenizer in (characters, chatting):
        samples = made(task("official", None, tmp_path), tokenizer, 2000, 4)
        whole = made(task("official", None, tmp_path), tokenizer, 100_000, 4)
        for cut, full in zip(samples, whole, strict=True):
            assert cut.prompt_tokens + cut.max_new_tokens <= 2000
            assert full.prompt_tokens - cut.prompt_tokens == cut.meta["removed_tokens"]
        assert [s.meta["removed_tokens"] > 0 for s in samples] == [False, True, True, True]
        assert samples[3].prompt_tokens + samples[3].max_new_tokens == 2000


def test_up_to_131072_the_official_limit_is_120000(
    tmp_path: Path, rows: list[dict[str, Any]], characters: Tokenizer
) -> None:
    rows[0]["context"] = "x" * 200_000
    write(tmp_path, rows[:1])
    at = {ctx: made(task("official", None, tmp_path), characters, ctx, 1)[0] for ctx in (131_072, 140_000, 300_000)}
    assert {ctx: s.prompt_tokens for ctx, s in at.items() if ctx < 300_000} == {131_072: 120_000, 140_000: 139_872}
    assert at[300_000].meta["removed_tokens"] == 0


def test_a_row_whose_question_would_be_cut_is_passed_over(
    tmp_path: Path, rows: list[dict[str, Any]], characters: Tokenizer
) -> None:
    rows[1]["choice_B"] = "The other valve " * 60
    write(tmp_path, rows)
    found = list(task("official", None, tmp_path).samples(characters, 1500, 2, 0))
    first, second, third = found
    assert isinstance(first, Sample)
    assert isinstance(third, Sample)
    assert isinstance(second, Unfit)
    enough = list(task("official", None, tmp_path).samples(characters, second.minimum_tokens, 2, 0))
    assert all(isinstance(one, Sample) for one in enough)


def test_a_chain_of_thought_that_has_no_room_is_passed_over(
    tmp_path: Path, rows: list[dict[str, Any]], words: Tokenizer
) -> None:
    write(tmp_path, rows)
    found = list(task("official", COT, tmp_path).samples(words, 1200, 1, 0))
    assert len(found) == len(rows)
    unfit = found[0]
    assert isinstance(unfit, Unfit)
    assert made(task("official", COT, tmp_path), words, unfit.minimum_tokens, 1)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda row: row.pop("choice_C"), "row 2: field 'choice_C' is missing"),
        (lambda row: row.update(answer="E"), "row 2: field 'answer' must be one of A, B, C, D, is 'E'"),
        (lambda row: row.update(length="huge"), "row 2: field 'length' must be one of short, medium, long"),
        (lambda row: row.update(context=None), "row 2: field 'context' must be a text, is NoneType"),
    ],
)
def test_a_wrong_row_is_one_line(
    spoil: Callable[[dict[str, Any]], Any], message: str, tmp_path: Path, rows: list[dict[str, Any]], words: Tokenizer
) -> None:
    spoil(rows[2])
    path = write(tmp_path, rows)
    with pytest.raises(UsageError, match=message) as error:
        made(task("official", None, tmp_path), words, 8192, 4)
    assert str(path) in str(error.value)


def test_missing_official_data_name_the_command(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="kleval data fetch longbench2"):
        task("official", None, tmp_path)


@pytest.mark.parametrize("protocol", [PROTOCOL, COT])
def test_the_card_says_what_it_must(protocol: str) -> None:
    card = task(protocol=protocol).card()
    assert {"source", "revision", "prompt_sha256", "metric", "limits", "deviations", "defects", "unknown"} <= set(card)
    json.dumps(card)


def test_the_family_is_registered_and_its_protocols_are_known() -> None:
    assert expand(["longbench2"]) == ["longbench2/mcq"]
    with pytest.raises(UsageError, match="no protocol"):
        task(protocol="cot")
