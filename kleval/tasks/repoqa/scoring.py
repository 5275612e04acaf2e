"""RepoQA's scoring: which of the repository's needles an answer is most like, and how much.

Source: evalplus/repoqa @ ae876de, repoqa/compute_score.py and repoqa/metric.py. Similarity is NLTK's sentence BLEU over
tokens split at white space, up to 4-grams, smoothing method 4. An answer passes at a threshold when the needle that it
is most like is the one asked for, and its similarity reaches the threshold. Known and kept, beside what the card says: a fence that
does not begin its line is not seen; the first function of the first block that has one counts, which in a class is its first method.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from kleval.tasks.answers import overlap
from kleval.tasks.languages import first_function, without_comments

THRESHOLDS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
HEADLINE = 0.8

# What the official pattern ^```(?:\w+)?\s*\n(.*?)(?=^```)``` finds, without its way back, which takes quadratic time.
_BLOCK = re.compile(r"^```\w*+(?>\s*\n)(.*?)^```", re.MULTILINE | re.DOTALL)
_SPACE = re.compile(r"\s+")
_ORDERS, _SMOOTHING = 4, 5

Candidate = tuple[str, str]  # what a needle of the repository is called, and its lines in the file


@dataclass(frozen=True, slots=True)
class Verdict:
    """best: name of the most similar needle, None when none has anything in common with the answer. similarity: to it.
    found: whether it is the one asked for."""

    best: str | None
    similarity: float
    found: bool

    def passes(self, threshold: float) -> bool:
        return self.found and self.similarity >= threshold


def code_blocks(answer: str) -> list[str]:
    """The contents of fenced blocks."""
    return _BLOCK.findall(answer)


def answered_function(answer: str, language: str) -> str:
    """The first function in a fenced block of the answer, else the first block, else the whole answer."""
    text = answer.strip()
    blocks = code_blocks(text)
    for block in blocks:
        function = first_function(block, language)
        if function is not None:
            return function
    return blocks[0] if blocks else text


def similarity(candidate: str, reference: str) -> float:
    """BLEU of `candidate` with one reference, both split at white space; to the bit what NLTK's sentence_bleu gives, whose import
    takes longer than scoring a run."""
    said, wanted = _SPACE.split(candidate.strip()), _SPACE.split(reference.strip())
    precisions: list[float] = []
    smoothed = 0
    for order in range(1, _ORDERS + 1):
        common, guessed, _ = overlap(said, wanted, order)
        hits = float(common)
        if not hits:
            if order == 1:
                return 0.0
            # Method 4 of Chen and Cherry (2014), as NLTK has it: the shorter the answer, the smaller the count in place of 0.
            if len(said) > 1:
                smoothed += 1
                hits = 1 / (2**smoothed * _SMOOTHING / math.log(len(said)))
        precisions.append(hits / max(1, guessed))
    brevity = 1.0 if len(said) > len(wanted) else math.exp(1 - len(wanted) / len(said))
    return brevity * math.exp(math.fsum(math.log(p) / _ORDERS for p in precisions if p > 0))


def judge(
    answer: str, asked: str, candidates: Sequence[Candidate], language: str, ignore_comments: bool = False
) -> Verdict:
    """The needle most like the answer; the first one where several are equally like it."""

    def seen(code: str) -> str:
        return without_comments(code, language) if ignore_comments else code

    function = seen(answered_function(answer, language))
    best, highest = None, 0.0
    for name, code in candidates:
        value = similarity(function, seen(code))
        if value > highest:
            best, highest = name, value
    return Verdict(best, highest, best is not None and best == asked)
