"""Protocol cards of RULER: hash of the prompt, limits, defects of the official code.

Source: NVIDIA/RULER @ c3f5e3b and its issues; every defect was seen in its code or in what it makes.
"""

from __future__ import annotations

import hashlib
import re

from kleval.tasks.ruler import cwe, fwe, niah, qa, vt
from kleval.tasks.ruler.spec import LM_EVAL, Spec

_TEMPLATES = {
    "vt": (vt.TEMPLATE, vt.PREFIX),
    "cwe": (cwe.TEMPLATE, cwe.PREFIX),
    "fwe": (fwe.TEMPLATE, fwe.PREFIX),
    "qa": (qa.TEMPLATE, qa.PREFIX),
}
_METRICS = {
    "string_match_all": "string_match_all: share of the answers that occur in the text, without case",
    "string_match_part": "string_match_part: whether any of the answers occurs in the text, without case",
}
_LM_EVAL_METRIC = "share of the references that occur in the text, as lm-eval computes string_match_part"
# What comes of drawing for a whole file, or with a fixed seed, or by steps; see the builtin edition's deviations.
_DRAWN = re.compile(r"fixed|draws from the state|500 words|step back")
_BUILTIN = re.compile(r"Kept.*")
_ALWAYS = (
    "the search for the size draws from the state that makes the samples, so that they depend on tokenizer and length."
    " Kept: the bytes are the official ones",
    "a sample that cannot be made small enough is tried for ever. Here it is an error that names the smallest ctx",
    "for a single value the official script rewrites `Some`, `are` and `answers` in the whole prompt, a chat template's"
    " words included. Here in the task's text alone: differs only where a template holds these words",
)
_BY_KIND = {
    "niah": (
        "`index` is overwritten by a needle's place, so that resuming may skip rows. Rows have ids of their own here",
        "one token too many takes 500 words from a haystack of essays, which leaves it up to an eighth short. Kept",
        "the shuffle of needles has one fixed seed. Kept",
    ),
    "vt": ("30 tokens are tight for a model that explains itself. Kept: the budget is official",),
    "cwe": (
        "common words stand at the same places in every sample of a size (fixed seed). Kept",
        "2,047 of the 8,166 words are parts of other words, so that a wrong word can count. Kept",
        "120 tokens are tight for a model that explains itself. Kept: the budget is official",
    ),
    "fwe": (
        "coded words stand at the same places in every sample of a size (fixed seed). Kept",
        "a step back of a thirty-second of ctx leaves samples up to a tenth short. Kept",
    ),
    "qa": (
        "the document that answers stands at one fixed place per number of documents, so that depths are not averaged."
        " Kept; the protocol nvidia-c3f5e3b-random-position places it anew for every question",
        "questions and documents are SQuAD's and HotpotQA's, which models know from training. Kept",
    ),
}


def prompt_sha256(spec: Spec) -> str:
    """Of the template and the answer prefix, placeholders unfilled (hex)."""
    if spec.needles is not None:
        single = spec.needles.queries * spec.needles.values == 1
        texts = (niah.ONE, niah.ONE_PREFIX) if single else (niah.MANY, niah.MANY_PREFIX)
    else:
        texts = _TEMPLATES[spec.kind]
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()


def metric(spec: Spec, protocol: str) -> str:
    return _LM_EVAL_METRIC if protocol == LM_EVAL and spec.kind == "qa" else _METRICS[spec.metric]


def limits(spec: Spec, official: bool) -> str:
    budget = f"{spec.budget} new tokens" if official else "longest reference x 1.5 + 16 new tokens"
    return f"temperature 0, no stop strings; {budget}; 500 samples at 4k to 128k in the official runs"


def defects(spec: Spec, official: bool) -> list[str]:
    """Of the official code, and what became of each; the builtin edition draws for every sample anew."""
    found = [*_ALWAYS, *_BY_KIND[spec.kind]]
    if official:
        return found
    return [_BUILTIN.sub("Not in this edition", text) if _DRAWN.search(text) else text for text in found]
