"""The builtin edition: what holds for every task, length and tokenizer."""

from __future__ import annotations

import contextlib
import re
from collections import Counter
from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kleval.tasks.draws import Draws
from kleval.tasks.fitting import budget_for
from kleval.tasks.registry import load_task
from kleval.tasks.ruler import vt
from kleval.tasks.ruler.builtin import Guess, fit
from kleval.tasks.ruler.form import DoesNotFit
from kleval.tasks.ruler.spec import IN_PROMPT, NOISE, SPECS, Draft
from kleval.types import Completion, ContextTooSmall, Sample, Score, Tokenizer

SEED, BUDGET = 5, 16


def made(name: str, tokenizer: Tokenizer, ctx: int, n: int, seed: int = SEED) -> list[Sample]:
    return list(load_task(f"ruler/{name}").samples(tokenizer, ctx, n, seed))


def first_that_fits(name: str, tokenizer: Tokenizer, ctx: int, n: int) -> list[Sample]:
    try:
        return made(name, tokenizer, ctx, n)
    except ContextTooSmall as error:
        return made(name, tokenizer, error.minimum_tokens, n)


@pytest.fixture(params=["words", "tiny_bpe"])
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    return request.getfixturevalue(request.param)


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("ctx", [1024, 2048, 4096, 9000])
def test_a_sample_fills_its_context_and_never_exceeds_it(name: str, ctx: int, tokenizer: Tokenizer) -> None:
    for sample in first_that_fits(name, tokenizer, ctx, 3):
        assert sample.prompt_tokens == tokenizer.count(tokenizer.render(sample.prompt, sample.answer_prefix))
        room = sample.ctx - sample.prompt_tokens - sample.max_new_tokens
        assert room >= 0
        # One more step of fwe's N can add a word of several ranks at once.
        units = 12 if name == "fwe" else 2
        assert room < units * sample.prompt_tokens / sample.meta["size"]


@pytest.mark.parametrize("name", SPECS)
def test_a_sample_does_not_depend_on_how_many_are_made_or_what_was_made_before(name: str, tokenizer: Tokenizer) -> None:
    several = first_that_fits(name, tokenizer, 1024, 4)
    task = load_task(f"ruler/{name}")
    ctx = several[0].ctx
    list(task.samples(tokenizer, ctx + 600, 2, SEED + 1))
    with contextlib.suppress(ContextTooSmall):
        list(task.samples(tokenizer, ctx, 1, SEED + 1))
    assert list(task.samples(tokenizer, ctx, 2, SEED)) == several[:2]
    assert next(islice(task.samples(tokenizer, ctx, 4, SEED), 3, 4)) == several[3]


@pytest.mark.parametrize("name", SPECS)
def test_the_references_score_one_and_silence_scores_nothing(name: str, words: Tokenizer) -> None:
    task = load_task(f"ruler/{name}")
    for sample in made(name, words, 1024, 3):
        for answer, expected in ((", ".join(sample.references), 1.0), ("", 0.0)):
            score = task.step(sample, [Completion(answer, 1, 1)])
            assert isinstance(score, Score)
            assert score.metrics == {task.metric: expected}


@pytest.mark.parametrize("name", SPECS)
def test_what_is_asked_for_is_in_the_prompt(name: str, tokenizer: Tokenizer) -> None:
    part = SPECS[name].metric == "string_match_part"
    for sample in first_that_fits(name, tokenizer, 2048, 3):
        found = [reference in str(sample.prompt) for reference in sample.references]
        assert any(found) if part else all(found)


@pytest.mark.parametrize("name", SPECS)
def test_the_budget_holds_the_longest_reference_and_half_of_it(name: str, tokenizer: Tokenizer) -> None:
    samples = first_that_fits(name, tokenizer, 1024, 3)
    for sample in samples:
        one = SPECS[name].metric == "string_match_part"
        longest = max(sample.references, key=len) if one else " ".join(sample.references)
        assert sample.max_new_tokens >= tokenizer.count(longest) * 1.5 + 16
    assert max(s.max_new_tokens for s in samples) < 600


@pytest.mark.parametrize("name", SPECS)
def test_samples_seeds_and_lengths_have_their_own_ids_and_prompts(name: str, words: Tokenizer) -> None:
    all_of_them = [*made(name, words, 1024, 3), *made(name, words, 1024, 2, SEED + 1), *made(name, words, 2048, 2)]
    assert len({s.id for s in all_of_them}) == len({s.prompt_hash for s in all_of_them}) == 7
    assert all_of_them[0].id == f"ruler/{name}@builtin-1/1024/s{SEED}/i0"


@pytest.mark.parametrize("name", SPECS)
def test_a_context_that_is_too_small_ends_with_its_minimum(name: str, tokenizer: Tokenizer) -> None:
    for ctx in (1, 60):
        with pytest.raises(ContextTooSmall) as error:
            made(name, tokenizer, ctx, 2)
        assert ctx < error.value.minimum_tokens <= 4096
    minimum = error.value.minimum_tokens
    assert len(made(name, tokenizer, minimum, 2)) == 2
    with pytest.raises(ContextTooSmall):
        made(name, tokenizer, minimum - 1, 2)


@pytest.mark.parametrize("name", SPECS)
def test_the_edition_says_how_it_differs(name: str) -> None:
    task = load_task(f"ruler/{name}")
    assert (task.edition, task.protocol) == ("builtin", "nvidia-c3f5e3b")
    assert len(task.deviations) >= 3  # type: ignore[attr-defined]
    card = task.card()  # type: ignore[attr-defined]
    assert card["deviations"] == list(task.deviations)  # type: ignore[attr-defined]
    assert card["data_digest"] == task.data_digest
    assert re.fullmatch("[0-9a-f]{64}", task.data_digest)


@pytest.mark.parametrize("name", ["niah_single_3", "cwe", "qa_1"])
def test_where_the_prefix_is_in_the_prompt_the_answer_may_repeat_it(name: str, words: Tokenizer) -> None:
    task = load_task(f"ruler/{name}", protocol=IN_PROMPT)
    (plain,) = made(name, words, 1024, 1)
    for sample in task.samples(words, 1024, 3, SEED):
        assert isinstance(sample, Sample)
        assert sample.answer_prefix == ""
        assert str(sample.prompt).endswith(plain.answer_prefix[-12:])
        assert sample.prompt_tokens == words.count(str(sample.prompt))
        assert sample.prompt_tokens + sample.max_new_tokens <= 1024
        assert sample.max_new_tokens >= plain.max_new_tokens + 2


def test_chat_models_get_a_message_and_are_measured_with_their_template(words: Tokenizer) -> None:
    class Chat:
        name, digest, chat_template_digest = "chat", "d", "t"
        encode, decode, count = words.encode, words.decode, words.count

        def render(self, prompt: object, answer_prefix: str = "") -> str:
            assert not isinstance(prompt, str)
            (message,) = prompt  # type: ignore[misc]
            return f"start {message['content']} now the bot says {answer_prefix}"

    for name in ("niah_single_1", "vt", "qa_1"):
        chat = Chat()
        (sample,) = made(name, chat, 1024, 1)  # type: ignore[arg-type]
        assert sample.prompt[0]["role"] == "user"  # type: ignore[index]
        assert sample.prompt_tokens == words.count(chat.render(sample.prompt, sample.answer_prefix))
        assert sample.prompt_tokens + sample.max_new_tokens <= 1024


def test_the_words_asked_for_are_the_most_common_ones(tokenizer: Tokenizer) -> None:
    for ctx in (2048, 6000):
        for sample in first_that_fits("cwe", tokenizer, ctx, 2):
            question = str(sample.prompt).rpartition("Below is")[2]
            counts = Counter(re.findall(r"\d+\. (.+?)(?= \d+\. |\n)", question))
            common = {word for word, _ in counts.most_common(10)}
            assert common == set(sample.references)
            assert min(counts[w] for w in common) > max(c for w, c in counts.items() if w not in common)


def test_the_coded_words_asked_for_are_the_most_frequent_after_the_dots(tokenizer: Tokenizer) -> None:
    for ctx in (700, 1024, 3000):
        for sample in first_that_fits("fwe", tokenizer, ctx, 2):
            text = str(sample.prompt).partition("coded words. ")[2].partition("\n")[0]
            ranked = Counter(text.split(" ")).most_common(5)
            assert [w for w, _ in ranked[:4]] == ["...", *sample.references]
            assert ranked[3][1] > ranked[4][1]


def test_the_variables_asked_for_are_the_chain_of_the_value(words: Tokenizer) -> None:
    for sample in made("vt", words, 1024, 3):
        question = str(sample.prompt).rpartition("Memorize and track")[2]
        assigned = dict(re.findall(r"VAR (\w+) = (?:VAR )?(\w+)", question))
        value = re.findall(r"assigned the value (\d+)", question)[-1]
        reached = {value}
        for _ in assigned:
            reached |= {name for name, source in assigned.items() if source in reached}
        assert reached - {value} == set(sample.references)


def test_needles_lie_where_the_sample_says(words: Tokenizer) -> None:
    depths = []
    for sample in made("niah_single_1", words, 2048, 12):
        lines = str(sample.prompt).split("\n")[1:-1]
        (place,) = (i for i, line in enumerate(lines) if line != NOISE)
        assert abs(100 * place / len(lines) - sample.meta["depth_percent"][0]) < 5
        depths.append(place)
    assert len(set(depths)) > 6


def test_gold_documents_are_not_at_one_place(words: Tokenizer) -> None:
    assert len({tuple(s.meta["depth_percent"]) for s in made("qa_1", words, 2048, 8)}) > 3


def test_two_hop_questions_have_both_documents(words: Tokenizer) -> None:
    for sample in made("qa_2", words, 2048, 4):
        assert len(sample.meta["depth_percent"]) >= 2


def test_a_long_list_of_common_words_needs_no_file(words: Tokenizer) -> None:
    (sample,) = made("cwe", words, 131072, 1)
    assert sample.meta["size"] > 8166


@settings(max_examples=200, deadline=None)
@given(
    unit=st.integers(1, 40),
    base=st.integers(0, 300),
    limit=st.integers(1, 5000),
    least=st.integers(1, 10),
    guess=st.integers(1, 5000),
    slope=st.floats(0.1, 100),
)
def test_the_search_finds_the_largest_size_from_any_guess(
    unit: int, base: int, limit: int, least: int, guess: int, slope: float
) -> None:
    def build(size: int) -> Draft:
        return Draft("", "", (), {"size": size})

    def tokens(draft: Draft) -> int:
        return base + unit * draft.meta["size"]

    if base + unit * least > limit:
        with pytest.raises(DoesNotFit) as error:
            fit(build, tokens, limit + BUDGET, BUDGET, least, Guess(guess, slope, 0))
        assert error.value.needed_tokens == base + unit * least + BUDGET
        return
    found, size = fit(build, tokens, limit + BUDGET, BUDGET, least, Guess(guess, slope, 0))
    assert found.tokens == base + unit * size <= limit
    largest = (limit - base) // unit
    assert size == largest or limit - found.tokens < slope


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 500), min_size=1, max_size=60), st.integers(1, 600))
def test_the_search_ends_whatever_the_lengths_are(lengths: list[int], limit: int) -> None:
    def tokens(draft: Draft) -> int:
        size = draft.meta["size"]
        return lengths[size - 1] if size <= len(lengths) else 10_000

    try:
        found, _ = fit(lambda n: Draft("", "", (), {"size": n}), tokens, limit + BUDGET, BUDGET, 1, Guess(7, 9.0, 0))
    except DoesNotFit:
        assert lengths[0] > limit
    else:
        assert found.tokens <= limit


def test_an_unlucky_name_is_drawn_again(words: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    lucky = vt.chain_names
    unlucky_seeds: set[int] = set()

    def names(draws: Draws, letters: int) -> list[str]:
        if letters == 5 and (draws.seed in unlucky_seeds or not unlucky_seeds):
            unlucky_seeds.add(draws.seed)
            raise IndexError("twice the same")
        return lucky(draws, letters)

    expected = made("vt", words, 1024, 2)
    monkeypatch.setattr(vt, "chain_names", names)
    assert len(made("vt", words, 1024, 2)) == len(expected)
    assert unlucky_seeds


def test_budget_is_half_as_much_again_and_sixteen() -> None:
    assert [budget_for(n) for n in (0, 1, 10, 11)] == [16, 18, 31, 33]
