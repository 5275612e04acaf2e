"""The five tasks in both editions."""

from __future__ import annotations

import re
import statistics
from itertools import islice
from pathlib import Path

import pytest

from kleval.tasks import lexicon as lx
from kleval.tasks.helmet_icl.dataset import find, read
from kleval.tasks.helmet_icl.intents import ACTIONS, Intent
from kleval.tasks.helmet_icl.official import INSTRUCTION, SPECS
from kleval.tasks.helmet_icl.task import ANY_LENGTH, CHAT, PROTOCOL, IclTask
from kleval.tasks.registry import expand, load_task
from kleval.types import Completion, ContextTooSmall, Sample, Tokenizer, UsageError

TASKS = tuple(SPECS)
REAL = ("trec_coarse", "trec_fine", "banking77", "clinic150")


def task(name: str, edition: str = "builtin", protocol: str | None = None, data_dir: Path | None = None) -> IclTask:
    loaded = load_task(f"helmet_icl/{name}", edition, protocol, data_dir)
    assert isinstance(loaded, IclTask)
    return loaded


def made(one: IclTask, tokenizer: Tokenizer, ctx: int, n: int, seed: int = 42) -> list[Sample]:
    return [sample for sample in one.samples(tokenizer, ctx, n, seed) if isinstance(sample, Sample)]


def score(one: IclTask, sample: Sample, text: str) -> float:
    return one.score(sample, Completion(text, 0, 0)).metrics[one.metric]


def shown(sample: Sample) -> tuple[list[tuple[str, str]], str]:
    """(the examples' texts and labels, the question) as they stand in the prompt."""
    text = sample.prompt if isinstance(sample.prompt, str) else sample.prompt[0]["content"]
    context, _, question = text.removeprefix(f"{INSTRUCTION}\n\n").rstrip("\n").rpartition("\n\n")
    return re.findall(r"(.+)\nlabel: (\d+)", context), question


A_THING = f"the (?:(?:{'|'.join(lx.ADJECTIVES)}) )?(?P<thing>{'|'.join(lx.THINGS)})"
SLOTS = {"o": A_THING, "t": f"(?:{'|'.join(lx.TIMES)})", "p": r"\w+", "n": r"\w+"}
PATTERNS = [
    (
        action,
        re.compile(
            "".join(SLOTS[slot[1]] if slot[0] == "{" else re.escape(slot) for slot in re.findall(r"\{.\}|[^{]+", way))
        ),
    )
    for action, ways in ACTIONS.items()
    for way in ways
]


def meaning(text: str, name: str) -> Intent:
    """What is meant by a text, for one who knows how things are said."""
    found = {(action, m["thing"]) for action, pattern in PATTERNS if (m := pattern.fullmatch(text))}
    if not found:
        return Intent("", "")
    ((action, thing),) = found
    return Intent(action, thing if SPECS[name].shape[1] else "")


def test_the_family_has_the_five() -> None:
    assert expand(["helmet_icl"]) == [f"helmet_icl/{name}" for name in ("trec_coarse", *TASKS[1:])]


@pytest.mark.parametrize("ctx", [1024, 8192])
@pytest.mark.parametrize("name", TASKS)
def test_an_oracle_gets_full_marks_and_an_empty_answer_none(name: str, ctx: int, words: Tokenizer) -> None:
    one = task(name)
    for sample in made(one, words, ctx, 6):
        assert score(one, sample, f" {sample.references[0]}\n\nanother text\nlabel: 3") == 1
        assert score(one, sample, "") == 0


@pytest.mark.parametrize("name", TASKS)
def test_answers_of_other_samples_score_near_zero(name: str, words: Tokenizer) -> None:
    one = task(name)
    samples = made(one, words, 4096, 40)
    moved = [score(one, sample, samples[i - 1].references[0]) for i, sample in enumerate(samples)]
    assert statistics.mean(moved) <= 0.1 + 1 / SPECS[name].n_labels


@pytest.mark.parametrize("ctx", [1024, 8192])
@pytest.mark.parametrize("name", TASKS)
def test_the_examples_alone_give_the_answer_to_one_who_understands_them(name: str, ctx: int, words: Tokenizer) -> None:
    one = task(name)
    for sample in made(one, words, ctx, 8):
        examples, question = shown(sample)
        label_of: dict[Intent, set[str]] = {}
        for text, label in examples:
            label_of.setdefault(meaning(text, name), set()).add(label)
        assert all(len(numbers) == 1 for numbers in label_of.values())
        assert label_of[meaning(question, name)] == {sample.references[0]}


@pytest.mark.parametrize("ctx", [700, 1024, 3000, 20000])
@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("kind", ["words", "tiny_bpe"])
def test_ctx_is_nearly_filled_and_every_label_shown(
    name: str, kind: str, ctx: int, request: pytest.FixtureRequest
) -> None:
    tokenizer: Tokenizer = request.getfixturevalue(kind)
    for sample in made(task(name), tokenizer, ctx, 3):
        assert sample.prompt_tokens == tokenizer.count(tokenizer.render(sample.prompt, sample.answer_prefix))
        assert 0.9 * ctx - 60 <= sample.prompt_tokens + sample.max_new_tokens <= ctx
        examples, question = shown(sample)
        assert len(examples) == sample.meta["shots"]
        assert len({label for _, label in examples}) == sample.meta["labels"]
        assert all(int(label) < SPECS[name].n_labels for _, label in examples)
        assert sample.references[0] in {label for _, label in examples}
        assert question not in {text for text, _ in examples}


def test_long_contexts_have_all_labels(words: Tokenizer) -> None:
    for name in TASKS:
        (sample,) = made(task(name), words, 16384, 1)
        assert sample.meta["labels"] == SPECS[name].n_labels


@pytest.mark.parametrize("name", ["trec_coarse", "clinic150"])
def test_a_sample_depends_on_nothing_but_what_it_is(name: str, words: Tokenizer) -> None:
    many = made(task(name), words, 2048, 4)
    assert made(task(name), words, 2048, 2) == many[:2]
    assert made(task(name), words, 2048, 4, seed=1)[0].prompt != many[0].prompt
    assert len({sample.id for sample in many}) == 4
    assert len({sample.prompt for sample in many}) == 4


@pytest.mark.parametrize("name", TASKS)
def test_a_context_that_is_too_short_names_one_that_is_not(name: str, words: Tokenizer) -> None:
    one = task(name)
    with pytest.raises(ContextTooSmall) as raised:
        made(one, words, 60, 1)
    assert made(one, words, raised.value.minimum_tokens + 20, 1)


def test_a_chat_is_asked_without_a_prefix(words: Tokenizer) -> None:
    plain, chat = (made(task("nlu", protocol=p), words, 1024, 1)[0] for p in (PROTOCOL, CHAT))
    assert isinstance(plain.prompt, str)
    assert plain.answer_prefix == "label:"
    assert not isinstance(chat.prompt, str)
    assert [message["role"] for message in chat.prompt] == ["user"]
    assert chat.answer_prefix == ""
    one = task("nlu", protocol=CHAT)
    assert score(one, chat, f"label: {chat.references[0]}") == 1
    assert chat.id != plain.id


@pytest.mark.parametrize("name", REAL)
def test_official_samples_are_the_tables(real_data: Path, words: Tokenizer, name: str) -> None:
    one = task(name, "official", data_dir=real_data)
    train, test = read(find(name, real_data))
    texts, test_texts = {item.text for item in train}, {item.text for item in test}
    for sample in made(one, words, 4096, 3):
        assert sample.meta["shots"] == sample.meta["shots_shown"] == SPECS[name].shots[0]
        assert sample.meta["tokens_removed"] == 0
        assert sample.meta["shots_rule"] == "table"
        assert sample.max_new_tokens == 20
        assert sample.prompt_tokens == words.count(words.render(sample.prompt, sample.answer_prefix))
        examples, question = shown(sample)
        assert question in test_texts
        assert sample.meta["shots_of_the_label"] == sum(label == sample.references[0] for _, label in examples)
        # Texts of several lines show their last one here.
        assert sum(text in texts for text, _ in examples) > 0.9 * len(examples)


def test_official_samples_end_after_five_hundred(real_data: Path, words: Tokenizer) -> None:
    one = task("trec_coarse", "official", data_dir=real_data)
    assert len(made(one, words, 4096, 1000)) == 500


@pytest.mark.parametrize("name", REAL)
def test_what_is_too_long_is_cut_at_the_end_and_says_by_how_much(
    real_data: Path, tiny_bpe: Tokenizer, name: str
) -> None:
    one = task(name, "official", data_dir=real_data)
    for sample in made(one, tiny_bpe, 4096, 2):
        assert 4096 - 8 <= sample.prompt_tokens + sample.max_new_tokens <= 4096
        assert sample.meta["tokens_removed"] > 0
        assert sample.meta["shots_shown"] < sample.meta["shots"]
        assert isinstance(sample.prompt, str)
        whole = made(task(name, "official", PROTOCOL + ANY_LENGTH, real_data), Long(tiny_bpe), 4096, 2)[sample.index]
        assert isinstance(whole.prompt, str)
        cut, _, question = sample.prompt.removesuffix("\n").rpartition("\n\n")
        assert whole.prompt.startswith(cut)
        assert whole.prompt.endswith(f"\n\n{question}\n")


class Long:
    """A tokenizer that finds everything short."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self.name, self.digest, self.chat_template_digest = "long", "", ""

    def encode(self, text: str) -> list[int]:
        return self._tokenizer.encode(text)

    def decode(self, ids: object) -> str:
        raise AssertionError("nothing is to be cut")

    def count(self, text: str) -> int:
        return 1

    def render(self, prompt: object, answer_prefix: str = "") -> str:
        return self._tokenizer.render(prompt, answer_prefix)  # type: ignore[arg-type]


@pytest.mark.parametrize("ctx", [1024, 5000, 1 << 18])
def test_other_lengths_than_the_tables_take_a_protocol_of_their_own(
    real_data: Path, words: Tokenizer, ctx: int
) -> None:
    with pytest.raises(ContextTooSmall, match="-any-length"):
        made(task("banking77", "official", data_dir=real_data), words, ctx, 1)
    (sample,) = made(task("banking77", "official", PROTOCOL + ANY_LENGTH, real_data), words, ctx, 1)
    assert sample.meta["shots_rule"] in ("interpolated", "extrapolated")
    assert sample.prompt_tokens + sample.max_new_tokens <= ctx


def test_an_oracle_gets_full_marks_on_the_real_data(real_data: Path, words: Tokenizer) -> None:
    for name in REAL:
        one = task(name, "official", data_dir=real_data)
        samples = made(one, words, 8192, 5)
        assert [score(one, sample, f" {sample.references[0]}") for sample in samples] == [1] * 5


@pytest.mark.parametrize("name", TASKS)
def test_the_card_says_what_it_must(name: str) -> None:
    card = task(name).card()
    for field in ("source", "revision", "prompt_sha256", "metric", "limits", "deviations", "defects", "description"):
        assert card[field]


def test_protocols_of_the_official_edition_alone_are_refused_for_the_builtin() -> None:
    with pytest.raises(UsageError, match="no protocol"):
        task("nlu", protocol=PROTOCOL + ANY_LENGTH)
    assert list(islice(task("nlu").samples(Long(None), 1024, 0, 1), 1)) == []  # type: ignore[arg-type]
