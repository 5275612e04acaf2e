"""Editions of RULER: the official one, out of pinned files and in the official order, and the choice between it and `builtin`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

from kleval.tasks import data, datafile, registry, texts
from kleval.tasks.ruler import corpus, cwe, haystack, lm_eval, niah, official, qa
from kleval.tasks.ruler.builtin import Builtin
from kleval.tasks.ruler.form import DoesNotFit, Fitted, Form
from kleval.tasks.ruler.spec import ANY_PLACE, IN_PROMPT, LM_EVAL, PROTOCOL, Spec
from kleval.tasks.ruler.words import all_words, combined, wonderwords
from kleval.tasks.sized import OfficialData, Question
from kleval.types import Tokenizer, UsageError


class Official(OfficialData):
    """Files from data_dir. UsageError when one is missing."""

    def __init__(self, spec: Spec, protocol: str, data_dir: Path | None) -> None:
        self._spec = spec
        self._protocol = protocol
        self._data_dir = data_dir
        self._files = {file: data.need("ruler", file, f"{spec.id} (official)", data_dir) for file in _files(spec)}
        named = {"words": wonderwords()} if spec.kind in ("niah", "cwe") else {}
        named |= {file: (_revision(status), status.sha256) for file, status in self._files.items()}
        revisions = dict.fromkeys(revision for revision, _ in named.values())
        digest = combined({name: digest for name, (_, digest) in named.items()})
        super().__init__(spec.id, " + ".join(revisions) or "generated", digest)

    def questions(self, tokenizer: Tokenizer, ctx: int, seed: int) -> Iterator[Question]:
        form = Form(tokenizer, self._protocol, "official")
        made = self._as_in_lm_eval(form, ctx) if self._protocol == LM_EVAL else self._samples(form, ctx, seed)
        for index, fitted in enumerate(made):
            # lm-eval does not count the answer prefix everywhere: there the budget is what is left of ctx.
            yield form.question(index, fitted, min(self._spec.budget, ctx - fitted.tokens))

    def _as_in_lm_eval(self, form: Form, ctx: int) -> Iterator[Fitted]:
        spec = self._spec
        asked = self._corpus() if spec.dataset else None
        for draft in lm_eval.stream(spec, form.tokenizer.count, ctx, self._essays(), asked):
            tokens = form.measure(draft)
            if tokens >= ctx:
                raise DoesNotFit(tokens + 1)
            yield Fitted(draft, tokens)

    def _samples(self, form: Form, ctx: int, seed: int) -> Iterator[Fitted]:
        spec, measure = self._spec, form.measure
        if spec.kind == "vt":
            return official.vt_stream(measure, form.tokenizer.count, ctx, spec.budget, seed)
        if spec.kind == "fwe":
            return official.fwe_stream(measure, ctx, spec.budget, seed)
        if spec.kind == "cwe":
            words = cwe.CommonWords(cwe.SHORT if ctx < 4096 else cwe.LONG, seed, self._more_words)
            return official.cwe_stream(words, measure, ctx, spec.budget, seed)
        if spec.kind == "qa":
            asked = qa.DocumentQa(self._corpus(), any_place=self._protocol == ANY_PLACE)
            return official.searched_stream(asked, measure, ctx, spec.budget, seed)
        assert spec.needles is not None
        return official.searched_stream(niah.Niah(spec.needles, self._essays()), measure, ctx, spec.budget, seed)

    def _corpus(self) -> corpus.Corpus:
        return corpus.read_corpus(self._spec.dataset, self._files[f"{self._spec.dataset}.json"].path)

    def _essays(self) -> haystack.Essays | None:
        if "PaulGrahamEssays.json" not in self._files:
            return None
        folder = next(status.path.parent for file, status in self._files.items() if file.endswith("abbrev_types.txt"))
        return haystack.read_essays(self._files["PaulGrahamEssays.json"].path, folder)

    def _more_words(self) -> tuple[str, Sequence[str]]:
        wanted = f"{self._spec.id} (official) above {len(all_words()):,} distinct words"
        status = data.need("ruler", "english_words.json", wanted, self._data_dir)
        return f"english_words.json {_revision(status)}", _english_words(status.path)


def _files(spec: Spec) -> list[str]:
    if spec.dataset:
        return [f"{spec.dataset}.json"]
    if spec.of_essays:
        punkt = [file for asset in data.assets("ruler") if asset.members for file in asset.files()]
        return ["PaulGrahamEssays.json", *punkt]
    return []


def _revision(status: data.Status) -> str:
    return status.revision or f"unrecognised {status.path.name} sha256:{status.sha256}"


@cache
def _english_words(file: Path) -> list[str]:
    try:
        words = list(datafile.whole_json(file).values())
    except (UsageError, AttributeError):
        words = []
    if not words or not all(isinstance(word, str) for word in words):
        raise UsageError(f"{file} does not have the shape of the official file, {{number: word}}")
    return words


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
    if edition == registry.OWN and data_dir is not None and spec.takes_documents:
        return Builtin(spec, protocol, texts.read(data_dir))
    raise UsageError(f"{spec.id} has no edition {edition!r}: there are builtin and official")
