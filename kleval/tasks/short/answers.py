"""Reading and comparison of answers, benchmark by benchmark: answer and references -> metrics, named as in lm-eval, and the
extracted answer.

The rules of lm-eval 0.4.13's tasks where there are such (regular expressions, what is ignored in a comparison), of
XiaoMi/cmath @ 06577be for CMATH. An empty answer is wrong everywhere.
"""

from __future__ import annotations

import ast
import re
import string
from collections.abc import Sequence
from fractions import Fraction
from functools import partial
from typing import Any

from kleval.tasks.answers import asserted, equates
from kleval.tasks.short import maths
from kleval.tasks.short.question import Reading

_STRICT = re.compile(r"#### (-?[0-9.,]+)")
_FLEXIBLE = re.compile(r"(-?[$0-9.,]{2,})|(-?[0-9]+)")
_SENTENCE = re.compile(r"(?<=The answer is )(.*)(?=.)")
_BRACKETED = re.compile(r"(\([A-Z]\))")
_MINERVA = re.compile(r"Final Answer: The final answer is(.*?). I hope it is correct.")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)

_GROUPED = re.compile(r"(?<=\d)[, ](?=\d)")
_LATEX_FRACTION = re.compile(r"\\frac{([^}]+)}{([^}]+)}")
_CHINESE_FRACTION = re.compile(r"(\d+)分之(\d+)")
_CHINESE_NUMBER = re.compile(r"\d+(?:[./]\d+)?%?")
_LAST_CANDIDATES = 2
_NEAR = Fraction(1, 100)

_LITERAL_CHARS = 4000


def stories(answer: str, references: Sequence[str]) -> Reading:
    """GSM8K: what stands behind `####`; and, more lenient, the last number."""
    strict = _STRICT.search(answer)
    numbers = [next(part for part in found if part) for found in _FLEXIBLE.findall(answer)]
    right = {_plain_number(reference) for reference in references}
    read = strict[1].strip() if strict else None
    last = numbers[-1].strip() if numbers else None
    metrics = {
        "exact_match,strict-match": float(read is not None and _plain_number(read) in right),
        "exact_match,flexible-extract": float(last is not None and _plain_number(last) in right),
    }
    return metrics, read if read is not None else last


def _plain_number(text: str) -> str:
    return text.replace(",", "").replace("$", "").removesuffix(".").lower()


def minerva(answer: str, references: Sequence[str]) -> Reading:
    """MATH: the sentence that the shots end in; and, more lenient, wherever a final answer stands."""
    sentence = _MINERVA.search(answer + "I hope it is correct.")
    read = sentence[1].strip() if sentence else None
    lenient = maths.final(answer)
    metrics = {
        "exact_match": float(_any_equal(read, references)),
        "exact_match final answer": float(_any_equal(read, references) or _any_equal(lenient, references)),
    }
    return metrics, read if read is not None else lenient


def solution(answer: str, references: Sequence[str]) -> Reading:
    """AIME, HMMT, PolyMath: the final answer, as `maths.final` finds it."""
    read = maths.final(answer)
    return {"exact_match": float(_any_equal(read, references))}, read


def _any_equal(read: str | None, references: Sequence[str]) -> bool:
    return read is not None and any(maths.equal(read, reference) for reference in references)


def first_line(answer: str, references: Sequence[str]) -> Reading:
    """MMLU, generated: the first line is the letter, case and punctuation aside."""
    read = answer.partition("\n")[0].strip()
    return {"exact_match,get_response": float(_bare(read) in map(_bare, references))}, read


def _first(pattern: str, metric: str, answer: str, references: Sequence[str]) -> Reading:
    """What the first match of the pattern holds, compared as it is."""
    match = re.search(pattern, answer)
    read = match[1].strip() if match else None
    return {metric: float(read in references)}, read


# BBH: what follows the first `the answer is `, without the line's last character.
reasoned = partial(_first, r"the answer is (.*).", "exact_match,get-answer")
# MMLU-Pro: the letter behind the first `answer is`.
option = partial(_first, r"answer is \(?([ABCDEFGHIJ])\)?", "exact_match,custom-extract")
# MMLU-Redux, generated: the first of the letters A to D.
first_letter = partial(_first, "([ABCD])", "exact_match,default")


def bracketed(answer: str, references: Sequence[str]) -> Reading:
    """GPQA with reasoning: what follows the first `The answer is `, without the line's last character; and, more lenient, the
    last letter in brackets."""
    match = _SENTENCE.search(answer)
    read = match[1].strip() if match else None
    letters = _BRACKETED.findall(answer)
    right = {_bare(reference) for reference in references}
    metrics = {
        "exact_match,strict-match": float(read is not None and _bare(read) in right),
        "exact_match,flexible-extract": float(bool(letters) and _bare(letters[-1]) in right),
    }
    return metrics, read if read is not None else next(reversed(letters), None)


def _bare(text: str) -> str:
    return text.lower().translate(_NO_PUNCTUATION)


def alias(answer: str, references: Sequence[str]) -> Reading:
    """TriviaQA: any of the aliases, case and punctuation aside."""
    read = answer.strip()
    bare = _bare(read)
    return {"exact_match,remove_whitespace": float(bare != "" and bare in map(_bare, references))}, read


def word_problem(answer: str, references: Sequence[str]) -> Reading:
    """CMATH: one of the last two numbers; whole numbers exactly, others to one per cent."""
    text = _GROUPED.sub("", _LATEX_FRACTION.sub(r"\1/\2", answer))
    text = _CHINESE_FRACTION.sub(r"\2/\1", text)
    found = _CHINESE_NUMBER.findall(text)[-_LAST_CANDIDATES:]
    right = [value for reference in references if (value := _number(reference.strip())) is not None]
    hit = any(_near(given, value) for text in found if (given := _number(text)) is not None for value in right)
    return {"exact_match": float(hit)}, found[-1] if found else None


def _number(text: str) -> Fraction | None:
    """The number and None for what is none, as a division by zero."""
    try:
        return Fraction(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except (ValueError, ZeroDivisionError):
        return None


def _near(given: Fraction, right: Fraction) -> bool:
    if given.denominator == 1 and right.denominator == 1:
        return given == right
    return abs(given - right) < _NEAR * min(abs(given), abs(right)) or given == right


def literal(answer: str, references: Sequence[str]) -> Reading:
    """CRUXEval's output prediction: the literal in the answer equals the one that the program returns. Nothing is run: what
    is no literal, an expression or a call, counts as wrong."""
    _, mark, tail = answer.rpartition("[ANSWER]")
    text = (tail if mark else answer).partition("[/ANSWER]")[0].strip()
    found, read = _predicted(text)
    right = found and any(_same_literal(read, ast.literal_eval(reference)) for reference in references)
    return {"exact_match": float(right)}, text if found else None


def _predicted(text: str) -> tuple[bool, Any]:
    """Whether there is a literal, and which: of `assert f(…) == LITERAL`, `f(…) == LITERAL` or LITERAL alone."""
    node = asserted(text) if len(text) <= _LITERAL_CHARS else None
    if isinstance(node, ast.Compare) and equates(node):
        node = node.comparators[0]
    try:
        return (False, None) if node is None else (True, ast.literal_eval(node))
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return False, None


def _same_literal(a: Any, b: Any) -> bool:
    try:
        return bool(a == b)
    except RecursionError:
        return False
