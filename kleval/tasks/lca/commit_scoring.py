"""Scoring of commit messages: chrF, BLEU, ROUGE-1/2/L and B-Norm, of a pair and of a corpus.

Source: JetBrains-Research/lca-baselines @ 5b1b564, commit_message_generation/src/metrics, whose chrF, BLEU (tokenizer
13a) and ROUGE (no stemming) are those of Hugging Face evaluate. chrF and BLEU come from sacrebleu. ROUGE follows
rouge_score 0.1.2 and B-Norm the smoothed BLEU of Tao et al. (ICSME 2021), written anew: the one is no longer kept, the
other was never a package. Not computed: BERTScore, which needs a model.

The official numbers of chrF and BLEU are corpus scores and not means over pairs, and its ROUGE is the median of an
unseeded bootstrap, so that it changes from run to run: `corpus_scores` and `bootstrap_rouge` compute them.
"""

from __future__ import annotations

import math
import re
import sys
from collections import Counter
from collections.abc import Sequence
from functools import cache
from typing import Any

Pair = tuple[str, str]  # prediction, reference

ROUGE_TYPES = ("rouge1", "rouge2", "rougeL", "rougeLsum")
_NOT_ALPHANUMERIC = re.compile(r"[^a-z0-9]+")
_WORD = re.compile(r"_|[^\W_]+|[^\s\w]")
_ORDER = 4
_TINY = sys.float_info.min
_RESAMPLES = 1000


def pair_scores(prediction: str, reference: str) -> dict[str, float]:
    """All metrics of one message, in [0, 1]."""
    values = {
        "chrf": chrf_metric().corpus_score([prediction], [[reference]]).score / 100,
        "bleu": _bleu().corpus_score([prediction], [[reference]]).score / 100,
        **{kind: value[2] for kind, value in rouge(prediction, reference).items() if kind != "rougeLsum"},
        "bnorm": b_norm(prediction, reference),
    }
    return {name: min(1.0, float(value)) for name, value in values.items()}


def corpus_scores(pairs: Sequence[Pair]) -> dict[str, float]:
    """The official numbers of a whole run, in [0, 1]; ROUGE as the plain mean of the pairs'."""
    if not pairs:
        raise ValueError("no pairs to score")
    predictions, references = [p for p, _ in pairs], [r for _, r in pairs]
    scored = [pair_scores(*pair) for pair in pairs]
    return {
        "chrf": float(chrf_metric().corpus_score(predictions, [references]).score) / 100,
        "bleu": float(_bleu().corpus_score(predictions, [references]).score) / 100,
        **{
            name: math.fsum(values[name] for values in scored) / len(scored)
            for name in ("rouge1", "rouge2", "rougeL", "bnorm")
        },
    }


def bootstrap_rouge(pairs: Sequence[Pair], seed: int) -> dict[str, float]:
    """ROUGE as evaluate aggregates it: median of 1,000 resampled means, in [0, 1].

    seed: of numpy's legacy state at the beginning of the aggregation. evaluate seeds it itself, from a state that nothing
    fixes: hence the official numbers' wandering.
    """
    import numpy as np

    random = np.random.RandomState(seed)
    scored = [rouge(*pair) for pair in pairs]
    medians = {}
    for kind in ROUGE_TYPES:
        matrix = np.array([values[kind] for values in scored])
        means = np.zeros((_RESAMPLES, 3))
        for i in range(_RESAMPLES):
            means[i] = matrix[random.choice(np.arange(len(matrix)), size=len(matrix))].mean(axis=0)
        medians[kind] = float(np.percentile(means, 50, axis=0)[2])
    return {kind: medians[kind] for kind in ROUGE_TYPES if kind != "rougeLsum"}


@cache
def chrf_metric() -> Any:
    from sacrebleu import CHRF

    return CHRF()


@cache
def _bleu() -> Any:
    from sacrebleu import BLEU

    return BLEU(tokenize="13a")


def rouge(prediction: str, reference: str) -> dict[str, tuple[float, float, float]]:
    """Type -> (precision, recall, F1) over lower-case runs of a-z and 0-9."""
    predicted, wanted = _tokens(prediction), _tokens(reference)
    found = {"rouge1": _overlap(predicted, wanted, 1), "rouge2": _overlap(predicted, wanted, 2)}
    found["rougeL"] = _f1(lcs_length(predicted, wanted), len(predicted), len(wanted))
    # The pairs' rougeLsum is not reported; it takes its turn at the random numbers, whatever its values are.
    found["rougeLsum"] = found["rougeL"]
    return found


def _tokens(text: str) -> list[str]:
    return _NOT_ALPHANUMERIC.sub(" ", text.lower()).split()


def _overlap(predicted: Sequence[str], wanted: Sequence[str], n: int) -> tuple[float, float, float]:
    grams = [Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1)) for words in (predicted, wanted)]
    return _f1((grams[0] & grams[1]).total(), grams[0].total(), grams[1].total())


def _f1(common: int, predicted: int, wanted: int) -> tuple[float, float, float]:
    precision, recall = common / max(predicted, 1), common / max(wanted, 1)
    return precision, recall, 2 * precision * recall / (precision + recall) if common else 0.0


def lcs_length(first: Sequence[str], second: Sequence[str]) -> int:
    """Length of the longest common subsequence, one row of bits at a time (Hyyrö 2004)."""
    masks: dict[str, int] = {}
    for i, item in enumerate(first):
        masks[item] = masks.get(item, 0) | 1 << i
    full = (1 << len(first)) - 1
    row = full
    for item in second:
        matched = row & masks.get(item, 0)
        row = ((row + matched) | (row - matched)) & full
    return len(first) - row.bit_count()


def b_norm(prediction: str, reference: str) -> float:
    """BLEU of one pair, lower case, punctuation apart, add-one smoothing above unigrams; an empty prediction has some."""
    predicted, wanted = (_WORD.findall(text.strip().lower()) for text in (prediction, reference))
    log = 0.0
    for n in range(1, _ORDER + 1):
        grams = [Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1)) for words in (predicted, wanted)]
        correct, guessed, smoothed = (grams[0] & grams[1]).total(), max(len(predicted) - n + 1, 0), int(n > 1)
        log += math.log(correct + smoothed + _TINY) - math.log(guessed + smoothed + _TINY)
    brevity = min(0.0, 1 - (len(wanted) + 1) / (len(predicted) + 1))
    return math.exp(log / _ORDER + brevity)
