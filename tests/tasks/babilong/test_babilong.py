"""BABILong: prompts and comparison as the official code has them, stories that their facts answer, the published set as a loader."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest

from kleval.tasks.babilong import task as stories
from kleval.tasks.babilong.task import prompt, right
from kleval.tasks.draws import own_draws
from kleval.tasks.registry import families, load_task
from kleval.types import Completion, ContextTooSmall, Sample, Tokenizer, Unfit, UsageError

GOLDEN: dict[str, Any] = json.loads(Path(__file__).with_name("golden.json").read_text("utf-8"))
NAMES = ("qa1", "qa2", "qa3", "qa4", "qa5")


def made(name: str, tokenizer: Tokenizer, ctx: int, n: int, **more: Any) -> tuple[Any, list[Any]]:
    task: Any = load_task(f"babilong/{name}", **more)
    return task, list(task.samples(tokenizer, ctx, n, 42))


def score(task: Any, sample: Sample, text: str) -> dict[str, float]:
    return dict(task.score(sample, Completion(text, 1, 1)).metrics)


def test_the_comparison_equals_the_official_one() -> None:
    wrong = [case for case in GOLDEN["cases"] if right(*case[1:4], GOLDEN["labels"][case[0]]) is not case[4]]
    assert len(GOLDEN["cases"]) == 396
    assert wrong == []


def test_prompts_equal_the_official_ones_to_the_byte() -> None:
    for name, context, question, sha256 in GOLDEN["prompts"]:
        assert hashlib.sha256(prompt(name, context, question).encode()).hexdigest() == sha256


@pytest.mark.parametrize("name", NAMES)
def test_an_oracle_gets_full_marks_and_ctx_is_nearly_filled(name: str, words: Tokenizer) -> None:
    task, samples = made(name, words, 1500, 5)
    labels = GOLDEN["labels"][name]
    for sample in samples:
        assert all(score(task, sample, reference) == {"accuracy": 1} for reference in sample.references)
        assert score(task, sample, "") == score(task, sample, " and ".join(labels)) == {"accuracy": 0}
        assert sample.references[0] in labels
        assert sample.prompt_tokens == words.count(words.render(sample.prompt))
        assert 1450 < sample.prompt_tokens + sample.max_new_tokens <= 1500


@pytest.mark.parametrize("name", NAMES)
def test_facts_stand_in_order_among_prose_that_names_nobody_of_them(name: str, words: Tokenizer) -> None:
    (sample,) = made(name, words, 1500, 1)[1]
    context = str(sample.prompt).partition("<context>\n")[2].partition("\n</context>")[0]
    for fact in sample.meta["facts"]:
        before, found, context = context.partition(fact)
        assert found
        assert not re.search(r"\b(Mary|John|Sandra|Fred|Bill|Jeff)\b", before)


def walk(facts: list[str]) -> tuple[dict[str, str], dict[str, list[str]], list[tuple[str, ...]]]:
    """Who is where, where each thing was in turn, and gifts, read out of the facts alone."""
    at: dict[str, str] = {}
    held: dict[str, str] = {}
    was: dict[str, list[str]] = {}
    gifts: list[tuple[str, ...]] = []
    for fact in facts:
        who = fact.split()[0]
        if m := re.search(r"to the (\w+)\.", fact):
            at[who] = m[1]
            for thing in (thing for thing, holder in held.items() if holder == who):
                was[thing].append(m[1])
        elif m := re.search(r"the (\w+) to (\w+)\.", fact):
            gifts.append((who, m[1], m[2]))
            held[m[1]], at[m[2]] = m[2], at[who]
        elif m := re.search(r"(took|got|picked up) the (\w+) there", fact):
            assert m[2] not in held
            assert was.get(m[2], [at[who]])[-1] == at[who]
            held[m[2]] = who
            was.setdefault(m[2], [at[who]])
        elif m := re.search(r"the (\w+) there", fact):
            assert held.pop(m[1]) == who
    return at, was, gifts


@pytest.mark.parametrize("name", ["qa1", "qa2", "qa3"])
def test_a_place_follows_from_the_facts(name: str) -> None:
    for i in range(40):
        told = stories.story(own_draws("t", i).rng, name)
        at, was, _ = walk(list(told.facts))
        asked = told.question.removesuffix("?").split()
        if name == "qa1":
            assert told.answer == at[asked[-1]]
        elif name == "qa2":
            assert told.answer == was[asked[-1]][-1]
        else:
            where = was[asked[3]]
            assert {where[i - 1] for i in range(1, len(where)) if where[i] == asked[-1]} == {told.answer}


def test_a_gift_follows_from_the_facts() -> None:
    forms = {
        r"What did (?P<a>\w+) give to (?P<c>\w+)\?": 1,
        r"Who gave the (?P<b>\w+) to (?P<c>\w+)\?": 0,
        r"Who did (?P<a>\w+) give the (?P<b>\w+) to\?": 2,
        r"Who gave the (?P<b>\w+)\?": 0,
        r"Who received the (?P<b>\w+)\?": 2,
    }
    seen = set()
    for i in range(60):
        told = stories.story(own_draws("t", i).rng, "qa5")
        gifts = walk(list(told.facts))[2]
        ((m, wanted),) = [(m, wanted) for form, wanted in forms.items() if (m := re.fullmatch(form, told.question))]
        given = {"abc".index(key): value for key, value in m.groupdict().items()}
        assert {g[wanted] for g in gifts if all(g[i] == value for i, value in given.items())} == {told.answer}
        seen.add(m.re.pattern)
    assert seen == set(forms)


def test_a_side_follows_from_the_facts() -> None:
    back = stories.WORDS["opposite"]
    for i in range(40):
        told = stories.story(own_draws("t", i).rng, "qa4")
        known = set()
        for fact in told.facts:
            one, side, other = re.fullmatch(r"The (\w+) is (\w+) of the (\w+)\.", fact).groups()  # type: ignore[union-attr]
            known |= {(one, side, other), (other, back[side], one)}
        if m := re.fullmatch(r"What is (\w+) of the (\w+)\?", told.question):
            assert [one for one, side, other in known if (side, other) == m.groups()] == [told.answer]
        else:
            m = re.fullmatch(r"What is the (\w+) (\w+) of\?", told.question)
            assert m
            assert [other for one, side, other in known if (one, side) == m.groups()] == [told.answer]


def test_a_context_that_is_too_short_names_one_that_is_not(words: Tokenizer) -> None:
    with pytest.raises(ContextTooSmall) as raised:
        made("qa3", words, 100, 1)
    assert made("qa3", words, raised.value.minimum_tokens, 1)[1]


@pytest.fixture
def published(tmp_path: Path) -> Path:
    for split, words in (("0k", 0), ("1k", 300), ("2k", 900)):
        rows = [
            {
                "input": f"{'Reed. ' * words}Mary went to the {{office}}.",
                "question": "Where is Mary? ",
                "target": "office",
            },
            {"input": "Reed. " * 9000, "question": "Where is Mary? ", "target": "office"},
        ]
        path = tmp_path / "babilong" / "data" / "qa1" / f"{split}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(rows))
    return tmp_path


def test_official_rows_are_those_of_the_longest_split_of_at_most_ctx(published: Path, words: Tokenizer) -> None:
    for ctx, split in ((900, "0k"), (1999, "1k"), (2048, "2k")):
        task, (sample, unfit) = made("qa1", words, ctx, 5, edition="official", data_dir=published)
        assert (sample.meta["split"], sample.max_new_tokens) == (split, 20)
        assert str(sample.prompt).endswith("Mary went to the {office}.\n</context>\n\nQuestion: Where is Mary?")
        assert score(task, sample, "Office") == {"accuracy": 1, f"accuracy {split}": 1}
        assert isinstance(unfit, Unfit)
        assert unfit.minimum_tokens > 9000


def test_a_split_that_is_not_there_is_named(published: Path, words: Tokenizer) -> None:
    with pytest.raises(UsageError, match=r"needs data/qa1/4k\.json"):
        made("qa1", words, 4096, 1, edition="official", data_dir=published)
    with pytest.raises(UsageError, match="kleval data fetch babilong"):
        made("qa2", words, 4096, 1, edition="official", data_dir=published)


def test_cards_name_the_published_set_and_no_score_of_the_paper() -> None:
    assert families()["babilong"] == [f"babilong/{name}" for name in NAMES]
    card = load_task("babilong/qa2").card()  # type: ignore[attr-defined]
    assert card["source"].startswith("made by kleval in the shape of RMT-team/babilong")
    assert card["limits"].startswith("4 to 20 facts a story")
