"""Editions of RULER: the official one, out of pinned files and in the official order, and the choice between it and `builtin`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from kleval.tasks import data, registry, texts
from kleval.tasks.draws import Draws
from kleval.tasks.ruler import cwe, haystack, lm_eval, niah, official, qa
from kleval.tasks.ruler.builtin import Builtin
from kleval.tasks.ruler.form import DoesNotFit, Fitted, Form
from kleval.tasks.ruler.spec import ANY_PLACE, IN_PROMPT, LM_EVAL, PROTOCOL, Spec
from kleval.tasks.ruler.words import all_words, combined, read_words, wonderwords
from kleval.tasks.sized import OfficialData, Question
from kleval.types import Tokenizer, UsageError

ESSAYS = "PaulGrahamEssays.json"


class Official(OfficialData):
    """Files from data_dir. UsageError when one is missing."""

    def __init__(self, spec: Spec, protocol: str, data_dir: Path | None) -> None:
        self._spec, self._protocol, self._data_dir = spec, protocol, data_dir
        files = [f"{spec.dataset}.json"] if spec.dataset else []
        if spec.of_essays:
            punkt = [file for asset in data.assets("ruler") if asset.members for file in asset.files()]
            files = [ESSAYS, *punkt]
        self._files = {file: data.need("ruler", file, f"{spec.id} (official)", data_dir) for file in files}
        named = {"words": wonderwords()} if spec.kind in ("niah", "cwe") else {}
        named |= {file: (_revision(status), status.sha256) for file, status in self._files.items()}
        revisions = dict.fromkeys(revision for revision, _ in named.values())
        digest = combined({name: digest for name, (_, digest) in named.items()})
        super().__init__(spec.id, " + ".join(revisions) or "generated", digest)

    def questions(self, tokenizer: Tokenizer, ctx: int, seed: int) -> Iterator[Question]:
        form = Form(tokenizer, self._protocol, "official")
        made = self._as_in_lm_eval(form, ctx) if self._protocol == LM_EVAL else self._samples(form, ctx, Draws(seed))
        for index, fitted in enumerate(made):
            # lm-eval does not count the answer prefix everywhere: there the budget is what is left of ctx.
            yield form.question(index, fitted, min(self._spec.budget, ctx - fitted.tokens))

    def _as_in_lm_eval(self, form: Form, ctx: int) -> Iterator[Fitted]:
        asked = self._corpus() if self._spec.dataset else None
        for draft in lm_eval.stream(self._spec, form.tokenizer.count, ctx, self._essays(), asked):
            tokens = form.measure(draft)
            if tokens >= ctx:
                raise DoesNotFit(tokens + 1)
            yield Fitted(draft, tokens)

    def _samples(self, form: Form, ctx: int, draws: Draws) -> Iterator[Fitted]:
        spec, measure, limit = self._spec, form.measure, ctx - self._spec.budget
        if spec.kind == "vt":
            yield from official.vt_stream(measure, form.tokenizer.count, draws, ctx, limit)
        elif spec.kind == "fwe":
            for fitted in official.fwe_stream(measure, draws, limit):
                # The official code does not look: it can write a text that lacks a word that is asked for.
                if not all(answer in fitted.draft.input for answer in fitted.draft.answers):
                    raise DoesNotFit
                yield fitted
        elif spec.kind == "cwe":
            # The first draw has 4,096 words and the bound is twice what it promises.
            words = cwe.CommonWords(cwe.SHORT if ctx < 4096 else cwe.LONG, draws.seed, self._more_words)
            yield from official.stream(
                words.draft, measure, draws, ctx, limit, cwe.STEP, first=4096, most=lambda room: int(room) * 2
            )
        elif spec.needles is None:
            draft = partial(qa.draft, self._corpus(), self._protocol == ANY_PLACE)
            yield from official.stream(draft, measure, draws, ctx, limit, qa.STEP)
        else:
            essays = self._essays()
            prose = None if essays is None else niah.Prose(essays.sentences, "words")
            draft, step = partial(niah.draft, spec.needles, prose), niah.step(spec.needles, ctx)
            yield from official.stream(draft, measure, draws, ctx, limit, step)

    def _corpus(self) -> qa.Corpus:
        return qa.read_corpus(self._spec.dataset, self._files[f"{self._spec.dataset}.json"].path)

    def _essays(self) -> haystack.Essays | None:
        if ESSAYS not in self._files:
            return None
        folder = next(status.path.parent for file, status in self._files.items() if file.endswith("abbrev_types.txt"))
        return haystack.read_essays(self._files[ESSAYS].path, folder)

    def _more_words(self) -> tuple[str, Sequence[str]]:
        wanted = f"{self._spec.id} (official) above {len(all_words()):,} distinct words"
        status = data.need("ruler", "english_words.json", wanted, self._data_dir)
        return f"english_words.json {_revision(status)}", read_words(status.path)


def _revision(status: data.Status) -> str:
    return status.revision or f"unrecognised {status.path.name} sha256:{status.sha256}"


def protocols(spec: Spec, edition: str) -> tuple[str, ...]:
    """What `--protocol` can name, the default first."""
    if edition != "official":
        return (PROTOCOL, IN_PROMPT)
    return (PROTOCOL, LM_EVAL, IN_PROMPT, *((ANY_PLACE,) if spec.kind == "qa" else ()))


def edition_of(spec: Spec, edition: str, protocol: str, data_dir: Path | None) -> Official | Builtin:
    if edition == "official":
        return Official(spec, protocol, data_dir)
    if edition == "builtin":
        return Builtin(spec, protocol)
    if edition == registry.OWN and data_dir is not None and spec.id in registry.TAKE_DOCUMENTS:
        return Builtin(spec, protocol, texts.read(data_dir))
    raise UsageError(f"{spec.id} has no edition {edition!r}: there are builtin and official")
