"""Items written for kleval (`items.toml`), in the shapes of HellaSwag, Winogrande, ARC-Challenge, TriviaQA, MMLU, MMLU-Redux,
MMLU-Pro, GPQA, C-Eval, CMMLU and CRUXEval's output prediction. MMLU's and MMLU-Redux's elementary mathematics is computed.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from kleval.tasks import packaged
from kleval.tasks.short.question import Item, Items, lettered, placed

_SHOTS = 5
_SUMS = "elementary_mathematics"
_PARTS = ((0, 5), (5, 8), (8, 11))  # of a subject's rows: shots, MMLU's, MMLU-Redux's
_ANSWER = "\nAnswer:"


def _rows(name: str) -> list[list[str]]:
    rows: list[list[str]] = packaged.load("short/items.toml")[name]
    return rows


def _subjects(name: str) -> dict[str, list[list[str]]]:
    subjects: dict[str, list[list[str]]] = packaged.load("short/items.toml")[name]
    return subjects


def _shown_first(items: Sequence[Item]) -> Items:
    return tuple(items[:_SHOTS]), tuple(items[_SHOTS:])


def scenes() -> Items:
    found = []
    for i, (activity, beginning, right, *wrong) in enumerate(_rows("scenes")):
        options, gold = placed(right, wrong, i)
        found.append(Item(f"{activity}: {beginning}", f" {right}", (right,), choices=options, gold=gold))
    return (), tuple(found)


def gaps() -> Items:
    found = []
    for i, (sentence, right, wrong) in enumerate(_rows("gaps")):
        before, _, after = sentence.partition("_")
        options, gold = placed(right, (wrong,), i)
        texts = tuple(before + option for option in options)
        rest = after.strip()
        found.append(Item(texts[0], f" {rest}", (right,), choices=(rest, rest), gold=gold, texts=texts))
    return _shown_first(found)


def science() -> Items:
    found = []
    for i, (question, right, *wrong) in enumerate(_rows("science")):
        options, gold = placed(right, wrong, i)
        text = f"Question: {question}\nAnswer:"
        found.append(Item(text, f" {right}", (right,), choices=options, gold=gold))
    return (), tuple(found)


def trivia() -> Items:
    return _shown_first(
        [
            Item(f"Question: {question}?\nAnswer:", f" {answer}", (answer, *others))
            for question, answer, *others in _rows("trivia")
        ]
    )


def mmlu() -> Items:
    return _part(0), _part(1)


def mmlu_redux() -> Items:
    """The benchmarks share their shots."""
    return _part(0), _part(2)


def _part(part: int) -> tuple[Item, ...]:
    start, stop = _PARTS[part]
    found: list[Item] = []
    for subject, rows in _subjects("mmlu").items():
        found += [_four(row, subject, start + i, "Answer:") for i, row in enumerate(rows[start:stop])]
    return (*found, *_sums(part))


def _sums(part: int) -> list[Item]:
    rng = random.Random(f"kleval-short-1/{_SUMS}/{part}")
    found = []
    for i in range(_PARTS[part][1] - _PARTS[part][0]):
        a, b = rng.randint(12, 49), rng.randint(3, 9)
        right = a * b
        wrong = [str(right + off) for off in (10, -b, a)]
        found.append(_four((f"What is {a} times {b}?", str(right), *wrong), _SUMS, i + part, "Answer:"))
    return found


def _four(row: Sequence[str], subject: str, number: int, tail: str) -> Item:
    """A lettered question whose answer is the letter. row: question, right option, three wrong ones."""
    question, right, *wrong = row
    options, gold = placed(right, wrong, number)
    letter = "ABCD"[gold]
    return Item(lettered(question, options, tail), f" {letter}", (letter,), subject, tuple("ABCD"), gold)


def chinese(name: str) -> Items:
    """name: ceval or cmmlu."""
    shots: list[Item] = []
    asked: list[Item] = []
    for subject, rows in _subjects(name).items():
        made = [_four(row, subject, i, "答案：") for i, row in enumerate(rows)]
        shots += made[:_SHOTS]
        asked += made[_SHOTS:]
    return tuple(shots), tuple(asked)


def professional() -> Items:
    found = []
    for i, (question, right, *wrong, reason) in enumerate(_rows("professional")):
        options, gold = placed(right, wrong, i)
        letter = chr(ord("A") + gold)
        text = lettered(f"Question:\n{question}\nOptions:", options, "Answer: Let's think step by step.")
        found.append(Item(text, f" {reason} The answer is ({letter}).", (letter,)))
    return _shown_first(found)


def graduate() -> Items:
    found = []
    choices = tuple(f"({letter})" for letter in "ABCD")
    for i, (question, right, *wrong) in enumerate(_rows("graduate")):
        options, gold = placed(right, wrong, i)
        lines = "".join(f"{choice} {option}\n" for choice, option in zip(choices, options, strict=True))
        text = f"Question: {question}\nChoices:\n{lines}Answer:"
        found.append(Item(text, f" {choices[gold]}", (choices[gold],), choices=choices, gold=gold))
    return _shown_first(found)


def graduate_reasoned() -> Items:
    """The same questions, asked for reasoning and a generated answer."""
    ask = "\nLet's think step by step: "
    return (), tuple(
        Item(
            f"What is the correct answer to this question:{item.text.removeprefix('Question: ').removesuffix(_ANSWER)}{ask}",
            f"Only one of the choices is right. The answer is {item.choices[item.gold]}.",
            item.references,
        )
        for item in graduate()[1]
    )


def program_text(code: str, arguments: str) -> str:
    """One program as it is asked about."""
    return f"[PYTHON]\n{code}\nassert f({arguments}) == ??\n[/PYTHON]\n[THOUGHT]\n"


def programs() -> Items:
    return (), tuple(
        Item(
            program_text(code, arguments),
            f"f is called with {arguments} and returns {output}.\n[/THOUGHT]\n"
            f"[ANSWER]\nassert f({arguments}) == {output}\n[/ANSWER]",
            (output,),
        )
        for code, arguments, output in _rows("programs")
    )
