"""Scoring of generated code and of commit messages.

Source: JetBrains-Research/lca-baselines @ 5b1b564 (MIT). Code: library_based_code_generation/src (evaluation/evaluate.py,
metrics/chrf.py, metrics/overlap.py, context/parsed_file.py): chrF with the reference, and the share of its library calls that the code
makes. Calls are looked for in the first 32 KiB of an answer; a fence inside a string cuts the code, as officially.

Messages: commit_message_generation/src/metrics, whose chrF, BLEU (tokenizer 13a) and ROUGE (no stemming) are those of Hugging Face
evaluate. chrF and BLEU come from sacrebleu. ROUGE follows rouge_score 0.1.2 and B-Norm the smoothed BLEU of Tao et al. (ICSME 2021),
written anew: the one is no longer kept, the other was never a package. The official numbers of chrF and BLEU are corpus scores and not
means over pairs, and its ROUGE is the median of an unseeded bootstrap: `corpus_scores` and `bootstrap_rouge` compute them.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Sequence

from kleval.tasks.answers import overlap
from kleval.tasks.languages import captures

Pair = tuple[str, str]  # prediction, reference

_CALLS = """
(call function: (identifier) @found)
(call function: (attribute attribute: (identifier) @found))
"""
_NOT_ALPHANUMERIC = re.compile(r"[^a-z0-9]+")
_WORD = re.compile(r"_|[^\W_]+|[^\s\w]")
_ORDER = 4
_TINY = sys.float_info.min
_RESAMPLES = 1000


def extract_code(message: str) -> str:
    """The first block fenced by ```python, else by ```, else in <code>, else all; stripped."""
    for opening, closing in (("```python", "```"), ("```", "```"), ("<code>", "</code>")):
        if opening in message:
            return message.split(opening, 2)[1].split(closing, 1)[0].strip()
    return message.strip()


def called_names(code: str) -> set[str]:
    """Names that are called, as functions or as attributes."""
    found = captures(code.encode("utf-8", "surrogatepass"), "python", _CALLS)
    return {node.text.decode("utf-8", "replace") for node in found if node.text is not None}


def api_recall(code: str, apis: Sequence[str]) -> float:
    """NaN when the reference calls nothing of the library (the official code divides by zero)."""
    return len(called_names(code) & set(apis)) / len(apis) if apis else math.nan


def chrf(prediction: str, reference: str) -> float:
    """sacrebleu's chrF2 of one pair (character 6-grams), in [0, 1]."""
    return min(1.0, _corpus("CHRF", [(prediction, reference)]))


def pair_scores(prediction: str, reference: str) -> dict[str, float]:
    """All metrics of one message, in [0, 1]."""
    bleu, bnorm = _corpus("BLEU", [(prediction, reference)], tokenize="13a"), b_norm(prediction, reference)
    scores = {"chrf": chrf(prediction, reference), "bleu": bleu, **rouge(prediction, reference), "bnorm": bnorm}
    return {name: min(1.0, value) for name, value in scores.items()}


def corpus_scores(pairs: Sequence[Pair]) -> dict[str, float]:
    """The official numbers of a whole run, in [0, 1]; ROUGE as the plain mean of the pairs'."""
    if not pairs:
        raise ValueError("no pairs to score")
    scored = [pair_scores(*pair) for pair in pairs]
    means = {name: math.fsum(values[name] for values in scored) / len(scored) for name in scored[0]}
    return {**means, "chrf": _corpus("CHRF", pairs), "bleu": _corpus("BLEU", pairs, tokenize="13a")}


def _corpus(metric: str, pairs: Sequence[Pair], **options: str) -> float:
    """A metric of sacrebleu's over all pairs, in [0, 1]."""
    import sacrebleu

    predictions, references = zip(*pairs, strict=True)
    return float(getattr(sacrebleu, metric)(**options).corpus_score(predictions, [references]).score) / 100


def bootstrap_rouge(pairs: Sequence[Pair], seed: int) -> dict[str, float]:
    """ROUGE as evaluate aggregates it: median of 1,000 resampled means, in [0, 1].

    seed: of numpy's legacy state at the beginning of the aggregation. evaluate seeds it itself, from a state that nothing
    fixes: hence the official numbers' wandering.
    """
    import numpy as np

    random, at = np.random.RandomState(seed), np.arange(len(pairs))
    scored = [rouge(*pair) for pair in pairs]
    medians = {}
    for kind in ("rouge1", "rouge2", "rougeL"):
        values = np.array([found[kind] for found in scored])
        means = [values[random.choice(at, size=len(at))].mean() for _ in range(_RESAMPLES)]
        medians[kind] = float(np.percentile(means, 50))
    return medians


def rouge(prediction: str, reference: str) -> dict[str, float]:
    """Type -> F1 over lower-case runs of a-z and 0-9."""
    predicted, wanted = (_NOT_ALPHANUMERIC.sub(" ", text.lower()).split() for text in (prediction, reference))
    found = {f"rouge{n}": _f1(*overlap(predicted, wanted, n)) for n in (1, 2)}
    return {**found, "rougeL": _f1(lcs_length(predicted, wanted), len(predicted), len(wanted))}


def _f1(common: int, predicted: int, wanted: int) -> float:
    precision, recall = common / max(predicted, 1), common / max(wanted, 1)
    return 2 * precision * recall / (precision + recall) if common else 0.0


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
        correct, guessed, _ = overlap(predicted, wanted, n)
        smoothed = int(n > 1)
        log += math.log(correct + smoothed + _TINY) - math.log(guessed + smoothed + _TINY)
    brevity = min(0.0, 1 - (len(wanted) + 1) / (len(predicted) + 1))
    return math.exp(log / _ORDER + brevity)
