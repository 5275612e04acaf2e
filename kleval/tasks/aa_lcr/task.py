"""The task `aa_lcr/qa`: one call, and one to a judge.

Protocols. `aa-lcr-1.1` and `aa-lcr-1.0`: the judge's prompt of that version of the data; an empty answer is wrong without asking
it. `contains`: no judge, the reference's words stand in the answer; the builtin edition's default, whose answers are a name or number.

Official: a table of 100 questions, and the documents of each in an archive or, unpacked, in a folder `lcr`, in the order of the table's
`data_source_filenames`. A document that is not there is an error: other harnesses ask without it. Names in the archive are UTF-8,
whether they are marked so or not.
"""

from __future__ import annotations

import hashlib
import random
import re
import unicodedata
import zipfile
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from kleval.tasks import data, packaged, prose, tables
from kleval.tasks.aa_lcr import reports
from kleval.tasks.answers import contains
from kleval.tasks.base import JUDGE_BUDGET, Judged
from kleval.tasks.data import Source
from kleval.tasks.likelihood import without
from kleval.tasks.plain_editions import Asked, Made, Rows, as_it_is
from kleval.tasks.sized import SizedTask
from kleval.types import Prompt, Sample, Score, UsageError

JUDGED = ("aa-lcr-1.1", "aa-lcr-1.0")
CONTAINS = "contains"
OFFICIAL_BUDGET = 4096
TABLE, ARCHIVE = "AA-LCR_Dataset.csv", "extracted_text/AA-LCR_extracted-text.zip"
PROMPTS = packaged.load("aa_lcr/prompts.toml")
_VERDICT = re.compile(r'"verdict"\s*:\s*"((?:IN)?CORRECT)"', re.IGNORECASE)
_WORD = re.compile(r"\b(?:IN)?CORRECT\b")


def prompt(documents: Sequence[str], question: str) -> str:
    shown = (PROMPTS["document"].format(number=n, text=text) for n, text in enumerate(documents, 1))
    return str(PROMPTS["model"].format(documents="\n\n".join(shown), question=question))


def judge_prompt(protocol: str, question: str, answer: str, candidate: str) -> Prompt:
    ask = PROMPTS[protocol]
    user = {"role": "user", "content": ask["user"].format(question=question, answer=answer, candidate=candidate)}
    return ({"role": "system", "content": ask["system"]}, user) if "system" in ask else (user,)


def verdict(reply: str) -> bool | None:
    """Of the last verdict in JSON, else of the words in capitals, where there are no two that differ. None where there is none."""
    found = {one.upper() for one in _VERDICT.findall(reply)[-1:] or _WORD.findall(reply)}
    return found == {"CORRECT"} if len(found) == 1 else None


class AaLcrTask(Judged, SizedTask):
    version = "1"
    reply_says = "verdict"
    own_protocols = (CONTAINS,)
    official_budget = OFFICIAL_BUDGET

    def __init__(self, edition: str, protocol: str | None, data_dir: Path | None) -> None:
        known = (*JUDGED, CONTAINS) if edition == "official" else (CONTAINS, *JUDGED)
        values = {"budget": OFFICIAL_BUDGET, "judge_budget": JUDGE_BUDGET}
        super().__init__("aa_lcr/qa", edition, protocol, known, values)
        self.metric = "accuracy" if self.needs_judge else CONTAINS
        made = partial(
            Made, self.id, self.version, _asked, reports.REPORTS_VERSION, reports.BANK, prose.SENTENCES_VERSION
        )
        self._open = made if edition == "builtin" else partial(self._official, data_dir)

    def _official(self, data_dir: Path | None) -> Rows:
        source = _find(self.id, data_dir)
        return Rows(self.id, source, partial(_rows, source), OFFICIAL_BUDGET)

    def _judge_prompt(self, sample: Sample, answer: str) -> Prompt:
        return judge_prompt(self.protocol, sample.meta["question"], sample.references[0], answer)

    def _verdict(self, reply: str) -> bool | None:
        return verdict(reply)

    def _score(self, sample: Sample, answer: str, right: bool | None) -> Score:
        metrics = {CONTAINS: contains(answer, sample.references)}
        if right is not None:
            value = float(right)
            metrics = {"accuracy": value, **metrics, f"accuracy {sample.meta['kind']}": value}
        return Score(metrics, extracted=answer.strip())

    def question_alone(self, sample: Sample) -> Prompt:
        """Without its documents."""
        return without(sample.prompt, PROMPTS["model"], "{documents}")

    def _template(self) -> str:
        ask = PROMPTS[self.protocol] if self.needs_judge else {}
        return "\0".join((PROMPTS["document"], PROMPTS["model"], *ask.values()))


def _find(task_id: str, data_dir: Path | None) -> Source:
    """The table, and the archive or the folder of the documents. UsageError naming what gets them."""
    known = ((TABLE, "AA-LCR"), (ARCHIVE, "documents"))
    table, texts = (data.find("aa_lcr", (file,), f"{task_id} (official)", data_dir, named) for file, named in known)
    where = texts.path
    if where.suffix != ".zip":
        where = next(folder for folder in where.parents if folder.name == "lcr")
        texts = data.source_of(sorted(where.rglob("*.txt")), "documents")
    told = f", {texts.revision}" if texts.revision.startswith("documents") else ""
    digest = hashlib.sha256(f"{table.sha256}\n{texts.sha256}".encode()).hexdigest()
    return Source((table.path, where), f"{table.revision}{told}", digest)


def _rows(source: Source, ctx: int) -> Iterator[Asked]:
    table, where = source.paths
    texts = _texts(where)
    for place, row in tables.rows(table):
        category, folder = (tables.text(place, row, name).strip() for name in ("document_category", "document_set_id"))
        found = []
        for file in tables.text(place, row, "data_source_filenames").split(";"):
            name = _key(f"{category}/{folder}/{file.strip()}")
            if name not in texts:
                raise UsageError(f"{place} needs the document {name}, which is not in {where}")
            found.append(_text(texts[name]))
        question, answer = (tables.text(place, row, name).strip() for name in ("question", "answer"))
        if not answer:
            raise UsageError(f"{place}: field 'answer' is empty")
        meta = {"question": question, "kind": category.partition("/")[0], "row": str(row.get("question_id", ""))}
        yield Asked(as_it_is(prompt(found, question)), (answer,), {**meta, "documents": len(found)})


def _texts(where: Path) -> dict[str, Any]:
    """Document (category/set/file) -> where it is read from."""
    try:
        if where.is_dir():
            found: dict[str, Any] = {file.relative_to(where).as_posix(): file for file in where.rglob("*")}
        else:
            packed = zipfile.ZipFile(where, metadata_encoding="utf-8")
            found = {name.partition("lcr/")[2]: zipfile.Path(packed, name) for name in packed.namelist()}
    except (OSError, UnicodeError, zipfile.BadZipFile) as error:
        raise UsageError(f"{where} cannot be read: {error}") from error
    return {_key(name): place for name, place in found.items()}


def _key(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _text(place: Any) -> str:
    try:
        return str(place.read_text(encoding="utf-8"))
    except (OSError, UnicodeError, zipfile.BadZipFile) as error:
        raise UsageError(f"{place} cannot be read: {error}") from error


def _asked(rng: random.Random, index: int) -> Asked:
    made = reports.report_set(rng)

    def build(taken: Sequence[str]) -> str:
        return prompt(made.documents(taken), made.question)

    meta = {"question": made.question, "kind": made.kind, "documents": len(made.reports)}
    return Asked(build, (made.answer,), meta, prose.sentences(rng.getrandbits(64)))


qa = AaLcrTask
