"""NoLiMa: needles placed as the official code places them, needles of kleval's own, and files of the official form as a loader."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest

from kleval.tasks import lexicon
from kleval.tasks.nolima.task import BANK, BOOKS, DEPTHS, NEEDLE_SETS, SCRIPT, Book, cases, characters
from kleval.tasks.prose import essay
from kleval.tasks.registry import load_task
from kleval.types import Completion, ContextTooSmall, Prompt, TextTooShort, Tokenizer, UsageError

GOLDEN: dict[str, Any] = json.loads(Path(__file__).with_name("golden.json").read_text("utf-8"))
COMMON = "a an by does been in it its may is of on the to was who which would person behind every him do have"
PIECE = re.compile(r"\s+|\w+|[^\w\s]")


class Pieces:
    """Words, marks and white space: a tokenizer that gives texts back."""

    name, digest, chat_template_digest = "pieces", "pieces", ""

    def __init__(self) -> None:
        self._ids: dict[str, int] = {}

    def encode(self, text: str) -> list[int]:
        return [self._ids.setdefault(piece, len(self._ids)) for piece in PIECE.findall(text)]

    def decode(self, ids: Any) -> str:
        pieces = list(self._ids)
        return "".join(pieces[i] for i in ids)

    def count(self, text: str) -> int:
        return len(PIECE.findall(text))

    def render(self, prompt: Prompt, answer_prefix: str = "") -> str:
        return prompt if isinstance(prompt, str) else "\n".join(message["content"] for message in prompt)


def test_a_needle_stands_where_the_official_code_puts_it() -> None:
    pieces = Pieces()
    book = Book.of("essay", essay(6000, "nolima"), pieces)
    assert len(GOLDEN["places"]) == 27
    for length, depth, begins, chars, sha256 in GOLDEN["places"]:
        found = book.with_needle(GOLDEN["needle"], length, depth, pieces)
        assert (found[:20], len(found), hashlib.sha256(found.encode()).hexdigest()) == (begins, chars, sha256)


def test_characters_are_drawn_as_the_official_code_draws_them() -> None:
    for seed, drawn in GOLDEN["drawn"]:
        assert characters(GOLDEN["names"], seed) == drawn


def test_a_book_that_is_too_short_says_how_long_it_is() -> None:
    pieces = Pieces()
    book = Book.of("short", essay(300, "nolima"), pieces)
    with pytest.raises(TextTooShort, match=f"{len(book.ids)} tokens, too few for a context of 9000") as raised:
        book.with_needle("x", 9000, 0.5, pieces)
    assert raised.value.minimum_tokens == len(book.ids)


def test_the_needle_is_the_only_place_that_names_the_answer(words: Tokenizer) -> None:
    task: Any = load_task("nolima/full")
    samples = list(task.samples(words, 1500, 16, 42))
    for sample in samples:
        text = sample.prompt[1]["content"]
        (name,) = sample.references
        assert text.count(name) == sample.meta["needle"].count(name) == 1
        assert name not in sample.meta["question"]
        at = text.index(sample.meta["needle"]) / text.index("\n\nAnswer the question")
        assert abs(100 * at - sample.meta["depth_percent"]) < 8
        assert task.score(sample, Completion(f"It is {name}.", 1, 1)).metrics == {
            "accuracy": 1,
            f"accuracy {sample.meta['kind']}": 1,
        }
        assert task.score(sample, Completion(name.lower(), 1, 1)).metrics["accuracy"] == 0
        assert 1420 < sample.prompt_tokens + sample.max_new_tokens <= 1500
    assert {sample.meta["kind"] for sample in samples} == {"onehop", "twohop"}
    assert list(task.samples_at(words, 1500, [15], 42)) == samples[15:]


def test_no_question_shares_a_word_with_its_needle_and_no_name_is_in_the_prose() -> None:
    common = set(COMMON.split())
    for one in BANK["needles"]:
        needle = set(re.findall(r"[a-z]+", one["needle"].lower())) - common
        for kind in ("onehop", "twohop"):
            assert not needle & set(re.findall(r"[a-z]+", one[kind].lower()))
    assert not set(BANK["names"].split()) & set(lexicon.NAMES)


def test_a_context_that_is_too_short_names_one_that_is_not(words: Tokenizer) -> None:
    task: Any = load_task("nolima/hard")
    with pytest.raises(ContextTooSmall) as raised:
        list(task.samples(words, 40, 1, 42))
    assert list(task.samples(words, raised.value.minimum_tokens + 8, 1, 42))


SET = [
    {
        "id": "0401",
        "system_prompt": "",
        "needle": "{CHAR} lives by the {1}.",
        "questions": {"onehop": "Who knows {1} town?", "direct": "Who lives by the {1}?"},
        "character_set": ["Mab", "Ewa"],
        "tests": {"T1": {"input_args": ["pier"]}, "T2": {"input_args": ["mole"]}},
    },
    {
        "id": "0402B",
        "task_template": "Book: {haystack}\nAsked: {question}",
        "system_prompt": "",
        "needle": "Tam sings.",
        "questions": {"twohop": "Who has a voice?"},
        "tests": {"T1": {"input_args": [], "gold_answers": ["Tam", "Tom"]}},
    },
]


@pytest.fixture
def published(tmp_path: Path) -> Path:
    files = {
        NEEDLE_SETS["full"]: json.dumps(SET),
        SCRIPT: 'DEFAULT_TASK_TEMPLATE = "Read:\\n{haystack}\\nSay: {question}"\n',
    }
    files |= {name: essay(2500, name) for name in BOOKS}
    for name, text in files.items():
        path = tmp_path / "nolima" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def test_a_set_is_every_question_with_every_test_but_the_direct_ones() -> None:
    found = cases("set", SET, "T")
    assert [(one.name, one.number) for one in found] == [
        ("0401_T1_onehop", 401),
        ("0401_T2_onehop", 401),
        ("0402B_T1_twohop", 402),
    ]
    assert (found[1].needle, found[1].question) == ("{CHAR} lives by the mole.", "Who knows mole town?")
    assert (found[2].golds, found[2].template) == (("Tam", "Tom"), SET[1]["task_template"])


def test_official_cases_are_all_depths_of_all_books_shuffled(published: Path) -> None:
    pieces = Pieces()
    task: Any = load_task("nolima/full", edition="official", data_dir=published)
    samples = list(task.samples(pieces, 1000, 1000, 42))
    assert (
        len(samples)
        == len({(s.meta["test"], s.meta["book"], s.meta["depth_percent"]) for s in samples})
        == 3 * DEPTHS * 5
    )
    assert len({s.meta["book"] for s in samples[:20]}) == 5
    for sample in samples[::13]:
        text = sample.prompt[1]["content"]
        assert sample.meta["needle"] in text
        assert (sample.max_new_tokens, sample.prompt[0]["content"]) == (192, "You are a helpful assistant")
        assert 1000 - 8 <= sample.prompt_tokens + sample.max_new_tokens <= 1000
        if sample.meta["test"].startswith("0402"):
            assert text.startswith("Book: ")
            assert sample.references == ("Tam", "Tom")
        else:
            seed = 42 + 401 + BOOKS.index(f"haystack/rand_shuffle/{sample.meta['book']}")
            name = characters(["Mab", "Ewa"], seed)[round(sample.meta["depth_percent"] / 4)]
            assert sample.references == (name,)
            assert text.startswith("Read:\n")
            assert text.endswith(f"\nSay: {sample.meta['question']}")
        assert task.question_alone(sample)[1]["content"].endswith(sample.meta["question"])
        assert sample.meta["needle"] not in task.question_alone(sample)[1]["content"]


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        (NEEDLE_SETS["full"], "[{}]", "is no needle set of NoLiMa: KeyError"),
        (NEEDLE_SETS["full"], json.dumps([{**SET[0], "character_set": []}]), "0401_T1 has no answer"),
        (SCRIPT, "x = 1", "has no DEFAULT_TASK_TEMPLATE"),
        (SCRIPT, "def", "has no DEFAULT_TASK_TEMPLATE"),
    ],
)
def test_files_of_another_form_are_told(published: Path, file: str, text: str, said: str) -> None:
    (published / "nolima" / file).write_text(text)
    with pytest.raises(UsageError, match=said):
        load_task("nolima/full", edition="official", data_dir=published)


def test_a_tokenizer_that_does_not_give_texts_back_is_refused(published: Path, words: Tokenizer) -> None:
    task: Any = load_task("nolima/full", edition="official", data_dir=published)
    with pytest.raises(UsageError, match="words does not give texts back"):
        list(task.samples(words, 1000, 1, 42))


def test_cards_say_the_licence_and_files_that_lack_are_named(tmp_path: Path) -> None:
    card = load_task("nolima/full").card()  # type: ignore[attr-defined]
    assert "noncommercial" in card["source"]
    with pytest.raises(UsageError, match="kleval data fetch nolima"):
        load_task("nolima/hard", edition="official", data_dir=tmp_path)
