"""The tasks `mrcr/2needle`, `mrcr/4needle` and `mrcr/8needle`: one call each, messages sent as messages.

Protocols: `openai` (the grader of openai/mrcr's data card) and `google-v2` (the metric of Google DeepMind's MRCR v2 on the
same conversations; that project's own data are another set). Builtin: conversations filled up to ctx; the texts in it are
the longer the longer ctx is, so that at 1k eight needles and some other turns find room.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from kleval.tasks import lexicon, texts
from kleval.tasks.base import OneCall
from kleval.tasks.mrcr import conversations, official
from kleval.tasks.mrcr.conversations import BANK, CONVERSATIONS_VERSION, Conversation, Matter
from kleval.tasks.plain_editions import Asked, MadeToSize
from kleval.tasks.prose import SENTENCES_VERSION, essay
from kleval.tasks.registry import OWN
from kleval.tasks.sized import SizedTask, digest_of
from kleval.types import Completion, Prompt, Sample, Score, Tokenizer

PROTOCOL = "openai"
GOOGLE = "google-v2"
_PROBES, _LONGEST_TEXT_CHARS, _LEAST_CHARS = 8, 1200, 60
_FILLED = 0.7  # of ctx, by needles, example and budget at most; the rest is for other turns
_WORDS = (lexicon.NAMES, lexicon.PEOPLE, lexicon.THINGS, lexicon.PLACES, lexicon.ABSTRACTS, conversations.KINDS)


class MrcrTask(OneCall, SizedTask):
    version = "1"
    own_protocols = (PROTOCOL,)
    metric = "match"
    official_budget = f"{official.BUDGET}, more where the answer takes more"

    def __init__(self, n_needles: int, edition: str, protocol: str | None, data_dir: Path | None) -> None:
        values = {"n_needles": n_needles, "longest": official.LONGEST_CHARS, "first_bin": official.NAMES[0]}
        super().__init__(f"mrcr/{n_needles}needle", edition, protocol, (PROTOCOL, GOOGLE), values)
        self._open = (
            partial(official.Official, self.id, n_needles, data_dir)
            if edition == "official"
            else partial(_builtin, self.id, self.version, n_needles, data_dir if edition == OWN else None)
        )
        # Bins are counted with it where it is there.
        self.also_reads = official.ENCODING if edition == "official" and official.vocabulary() is not None else ""

    def score(self, sample: Sample, answer: Completion) -> Score:
        """match: the similarity. prefix: whether the random string was there, where the protocol wants it."""
        prefix, reference = sample.meta["prefix"], sample.references[0]
        if self.protocol == PROTOCOL:
            match = official.openai_grade(answer.text, reference, prefix)
            there = answer.text.startswith(prefix)
        else:
            match = official.google_grade(answer.text, reference, len(prefix))
            there = prefix in answer.text
        metrics = {"match": match, "prefix": float(there)}
        if "bin" in sample.meta:
            metrics[f"match {sample.meta['bin']}"] = match
        return Score(metrics, extracted={"prefix": there})

    def question_alone(self, sample: Sample) -> Prompt:
        """The last message."""
        return sample.prompt[-1:]

    def _template(self) -> str:
        return str(BANK["question"]).format(prefix="{hash}", nth="{n-th}", kind="{kind}", topic="{topic}")

    def _facts(self) -> Mapping[str, Any]:
        return {
            "bins": f"tokens of {official.ENCODING} where its vocabulary is at hand, else the model's own; a row's"
            " bin_tokenizer says which"
        }


def _builtin(task_id: str, task_version: str, n_needles: int, documents: Path | None) -> MadeToSize:
    """documents: of the user's, which the other turns read from (edition `own`)."""
    own = texts.read(documents) if documents is not None else None
    matter = Matter(passages=own.sentences()) if own else conversations.EVALUATED

    def make(rng: random.Random, text_chars: int) -> Conversation:
        return conversations.conversation(rng, n_needles, text_chars, matter)

    made = filled_up(task_id, task_version, n_needles, make)
    if own:
        made.revision, made.digest = f"{own.name} in {made.revision}", digest_of(made.digest, own.digest)
    return made


def filled_up(
    task_id: str, task_version: str, n_needles: int, make: Callable[[random.Random, int], Conversation]
) -> MadeToSize:
    """Conversations whose texts are about as long as ctx allows. make: of random numbers and characters of a text."""

    def asked(rng: random.Random, text_chars: int) -> Asked:
        return make(rng, text_chars).asked()

    parts = CONVERSATIONS_VERSION, SENTENCES_VERSION, _WORDS
    sizes = partial(_text_chars, n_needles)
    return MadeToSize(task_id, task_version, asked, *parts, sizes=sizes, n_probes=_PROBES, share=_FILLED)


def _text_chars(n_needles: int, tokenizer: Tokenizer, ctx: int) -> Iterator[int]:
    """How long texts may be, in characters: room for as many other turns as needles, some more, and the answer; then halves of it."""
    prose = essay(600)
    chars_per_token = len(prose) / max(1, tokenizer.count(prose))
    wanted = min(_LONGEST_TEXT_CHARS, int(ctx * chars_per_token * _FILLED / (2 * n_needles + 8)))
    while wanted:
        yield wanted
        wanted = wanted // 2 if wanted > _LEAST_CHARS else 0
    yield 0


needles_2, needles_4, needles_8 = (partial(MrcrTask, n) for n in (2, 4, 8))
