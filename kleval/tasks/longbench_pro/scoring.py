"""Scores of LongBench Pro by kind of question: what is read out of an answer, and what it is worth.

Source: caskcsg/longcontext @ 88fbeb8, LongBench-Pro/modules/utils.py and evaluation.py (NDCG as pytrec_eval's ndcg_cut).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import combinations

MARKS = ("[Answer]", "[答案]")
Lines = Sequence[str]


def extract(answer: str) -> list[str]:
    """The lines behind the last mark, the English one where there are both; of an answer without one all lines. Lower case, single
    blanks."""
    mark = next((mark for mark in MARKS if mark in answer), None)
    area = answer if mark is None else answer[answer.rfind(mark) + len(mark) :]
    return [" ".join(line.split()) for line in area.strip().lower().split("\n")]


def accuracy(right: Lines, found: Lines) -> float:
    """Whether the first lines are equal."""
    return float(right[0] == found[0])


def sub_em(right: Lines, found: Lines) -> float:
    """The share of right lines that are among the others."""
    return sum(one in found for one in right) / len(right)


def f1(right: Lines, found: Lines) -> float:
    common = len(set(right) & set(found))
    if not common:
        return 0.0
    precision, recall = common / len(set(found)), common / len(set(right))
    return 2 * precision * recall / (precision + recall)


def pairwise(right: Lines, found: Lines) -> float:
    """Pairs in the right order, over all pairs of the answer's lines: too many lines cost."""
    if len(right) < 2 or len(found) < 2:
        return 0.0
    at = {one: n for n, one in enumerate(found)}
    ordered = sum(a in at and b in at and at[a] < at[b] for a, b in combinations(right, 2))
    return ordered / (len(found) * (len(found) - 1) // 2)


def ndcg(right: Lines, found: Lines) -> float:
    """At as many places as there are right lines, which are worth the more the earlier they stand. A line that is repeated counts
    where it stands last."""
    worth = {one: len(right) - n for n, one in enumerate(right)}
    last = sorted({one: n for n, one in enumerate(found)}.items(), key=lambda pair: pair[1])
    gains = [worth.get(one, 0) for one, _ in last]
    return _discounted(gains[: len(right)]) / _discounted(sorted(worth.values(), reverse=True))


def _discounted(gains: Sequence[int]) -> float:
    return sum(gain / math.log2(n + 2) for n, gain in enumerate(gains))


KINDS: dict[str, Callable[[Lines, Lines], float]] = {
    **dict.fromkeys(("T1.1", "T1.2"), ndcg),
    **dict.fromkeys(("T2.1", "T2.2", "T6.3"), pairwise),
    **dict.fromkeys(("T3.1", "T3.2", "T11.1", "T11.2"), accuracy),
    **dict.fromkeys(("T5.1", "T5.2", "T6.2", "T7.1", "T7.2", "T7.3", "T9.1", "T9.2"), f1),
    **dict.fromkeys(("T6.1", "T8.1", "T8.2", "T8.3", "T10.1", "T10.2"), sub_em),
}


def score(kind: str, right: Lines, answer: str) -> float:
    """kind: of KINDS. An empty answer is 0."""
    lines = [" ".join(one.lower().split()) for one in right]
    return KINDS[kind](lines, extract(answer.strip())) if answer.strip() and right else 0.0
