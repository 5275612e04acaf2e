"""AA-LCR: the data card's prompt, a judge that is asked or not, reports that are counted anew here, and files of the published form."""

from __future__ import annotations

import csv
import hashlib
import json
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from kleval.tasks import data
from kleval.tasks.aa_lcr.reports import BANK, report_set
from kleval.tasks.aa_lcr.task import JUDGED, judge_prompt, prompt, verdict
from kleval.tasks.draws import own_draws
from kleval.tasks.registry import load_task
from kleval.types import Completion, ContextTooSmall, Failure, Request, Sample, Score, Tokenizer, Unfit, UsageError

GOLDEN: dict[str, Any] = json.loads(Path(__file__).with_name("golden.json").read_text("utf-8"))


def said(text: str) -> Completion:
    return Completion(text, 1, 1)


def metrics(task: Any, sample: Sample, *texts: str) -> Mapping[str, float]:
    scored = task.step(sample, [said(text) for text in texts])
    assert isinstance(scored, Score)
    return scored.metrics


def test_prompts_equal_those_of_the_data_card_to_the_byte() -> None:
    for documents, question, sha256 in GOLDEN["prompts"]:
        assert hashlib.sha256(prompt(documents, question).encode()).hexdigest() == sha256


def test_the_judge_of_each_version_is_asked_in_its_own_words() -> None:
    new, old = (judge_prompt(protocol, "Q?", "gold", "mine") for protocol in JUDGED)
    assert [message["role"] for message in new] == ["system", "user"]  # type: ignore[union-attr, index]
    assert [message["role"] for message in old] == ["user"]  # type: ignore[union-attr, index]
    assert "ASSESS\n\nmine\n\nEND" in new[1]["content"]  # type: ignore[index]
    assert new[1]["content"].endswith("Reply as JSON, with a verdict of CORRECT or INCORRECT.")  # type: ignore[index]
    assert old[0]["content"].endswith("ASSESS: mine\n\nReply only with CORRECT or INCORRECT.")  # type: ignore[index]


@pytest.mark.parametrize(
    ("reply", "found"),
    [
        ('{"verdict": "CORRECT"}', True),
        ('```json\n{"verdict":"incorrect"}\n```', False),
        ('{"verdict": "CORRECT"} no: {"verdict": "INCORRECT"}', False),
        ("CORRECT", True),
        ("**INCORRECT**.", False),
        ("It is CORRECT, not INCORRECT.", None),
        ("The answer seems correct.", None),
        ("", None),
    ],
)
def test_a_verdict_is_read_where_there_is_one(reply: str, found: bool | None) -> None:
    assert verdict(reply) is found


@pytest.mark.parametrize("protocol", JUDGED)
@pytest.mark.parametrize("empty", ["", " \n"])
def test_an_empty_answer_is_wrong_and_no_judge_sees_it(protocol: str, empty: str, words: Tokenizer) -> None:
    task: Any = load_task("aa_lcr/qa", protocol=protocol)
    (sample,) = task.samples(words, 1200, 1, 42)
    assert task.needs_judge
    assert [request.kind for request in task.step(sample, [])] == ["generate"]
    assert metrics(task, sample, empty) == {"accuracy": 0, "contains": 0, f"accuracy {sample.meta['kind']}": 0}


@pytest.mark.parametrize("protocol", JUDGED)
def test_the_judge_decides_and_a_reply_without_a_verdict_is_a_failure(protocol: str, words: Tokenizer) -> None:
    task: Any = load_task("aa_lcr/qa", protocol=protocol)
    (sample,) = task.samples(words, 1200, 1, 42)
    (asked,) = task.step(sample, [said("my answer")])
    assert isinstance(asked, Request)
    assert (asked.kind, asked.prompt) == (
        "judge",
        judge_prompt(protocol, sample.meta["question"], sample.references[0], "my answer"),
    )
    assert metrics(task, sample, "my answer", "CORRECT")["accuracy"] == 1
    assert metrics(task, sample, sample.references[0], "INCORRECT")["accuracy"] == 0
    failed = task.step(sample, [said("my answer"), said("I cannot say.")])
    assert isinstance(failed, Failure)
    assert (failed.kind, "I cannot say." in failed.message) == ("judge", True)


def test_without_a_judge_the_words_decide(words: Tokenizer) -> None:
    task: Any = load_task("aa_lcr/qa")
    samples = list(task.samples(words, 1200, 12, 42))
    assert not task.needs_judge
    for sample in samples:
        assert metrics(task, sample, f"I think {sample.references[0]}.") == {"contains": 1}
        assert metrics(task, sample, "I do not know.") == metrics(task, sample, "") == {"contains": 0}
        assert 1100 < sample.prompt_tokens + sample.max_new_tokens <= 1200
        assert sample.prompt.count("BEGIN DOCUMENT") == sample.meta["documents"] == 9
    assert list(task.samples_at(words, 1200, [11], 42)) == samples[11:]


def test_answers_follow_from_the_reports() -> None:
    forms = {name: re.escape(form).replace(r"\{", "{").replace(r"\}", "}") for name, form in BANK["figures"].items()}
    seen = set()
    for i in range(60):
        made = report_set(own_draws("reports", i).rng)
        text = "\n".join(made.documents(["Filler." for _ in range(40)]))
        figures: dict[tuple[str, str, str], int] = {}
        for part in re.split(r"(?=^.+: report on)", text, flags=re.M)[1:]:
            company, quarter, year = re.match(r"(.+): report on the (\w+) quarter of (\d+)", part).groups()  # type: ignore[union-attr]
            assert int(year) == made.year
            for name, form in forms.items():
                (n,) = re.findall(form.format(company=company, quarter=quarter, n=r"(\d+)"), part)
                figures[company, quarter, name] = int(n)
        assert figures == made.figures
        companies = sorted({key[0] for key in figures}, key=lambda one: made.question.find(one) % 10_000)
        quarters = sorted({key[1] for key in figures}, key=lambda one: made.question.find(one) % 10_000)
        one, when = companies[0], quarters[0]
        name = "costs" if "spend on" in made.question else "revenue"
        right: dict[str, object] = {
            "highest": max(quarters, key=lambda at: figures[one, at, name]),
            "difference": abs(figures[one, when, "costs"] - figures[one, quarters[1], "costs"]),
            "together": figures[one, when, "revenue"] + figures[companies[1], when, "revenue"],
            "most": max(companies, key=lambda each: figures[each, when, "staff"]),
            "between": abs(figures[one, when, "revenue"] - figures[one, when, "costs"]),
            "sum": sum(figures[one, at, "crates"] for at in quarters),
        }
        assert made.answer == str(right[made.kind])
        seen.add(made.kind)
    assert seen == set(BANK["questions"])


def test_a_context_that_is_too_short_names_one_that_is_not(words: Tokenizer) -> None:
    task: Any = load_task("aa_lcr/qa")
    with pytest.raises(ContextTooSmall) as raised:
        list(task.samples(words, 100, 1, 42))
    assert list(task.samples(words, raised.value.minimum_tokens + 40, 1, 42))


TEXTS = {"Legal/l_1/b – é.txt": "Second.\r\nLine.", "Legal/l_1/a.txt": "First.", "Marketing/m_1/c.txt": "word " * 9000}
ROWS = [
    {
        "document_category": "Legal",
        "document_set_id": "l_1",
        "data_source_filenames": "b – é.txt; a.txt",
        "answer": "Alpha",
    },
    {"document_category": "Marketing", "document_set_id": "m_1", "data_source_filenames": "c.txt", "answer": "Beta"},
]


def write(folder: Path, *, packed: bool, rows: list[dict[str, str]] = ROWS, utf8: bool = True) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "AA-LCR_Dataset.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, ["", "question_id", "question", *ROWS[0]])
        writer.writeheader()
        writer.writerows({"": n, "question_id": n + 1, "question": " Which? ", **row} for n, row in enumerate(rows))
    if not packed:
        for name, text in TEXTS.items():
            path = folder / "lcr" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text.encode())
        return folder
    (folder / "extracted_text").mkdir()
    with zipfile.ZipFile(folder / "extracted_text/AA-LCR_extracted-text.zip", "w") as archive:
        archive.writestr("lcr/", "")
        for name, text in TEXTS.items():
            archive.writestr(f"lcr/{name}", text)
    if not utf8:  # as programs write it that do not say which letters they mean
        path = folder / "extracted_text/AA-LCR_extracted-text.zip"
        whole, name = path.read_bytes(), "lcr/Legal/l_1/b – é.txt".encode()
        for mark, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
            begin = whole.rindex(mark, 0, whole.index(name) if at == 6 else whole.rindex(name))
            whole = whole[: begin + at] + b"\0\0" + whole[begin + at + 2 :]
        path.write_bytes(whole)
    return folder


@pytest.mark.parametrize("how", [{"packed": True}, {"packed": True, "utf8": False}, {"packed": False}])
def test_official_rows_have_their_documents_in_the_table_s_order(
    how: dict[str, bool], tmp_path: Path, words: Tokenizer
) -> None:
    task: Any = load_task("aa_lcr/qa", edition="official", data_dir=write(tmp_path, **how))
    sample, unfit = task.samples(words, 5000, 5, 42)
    assert sample.prompt == prompt(["Second.\nLine.", "First."], "Which?")
    assert (sample.references, sample.max_new_tokens, task.protocol) == (("Alpha",), 4096, "aa-lcr-1.1")
    assert isinstance(unfit, Unfit)
    assert unfit.minimum_tokens > 13_000
    assert "unpinned" in task.data_revision
    assert task.question_alone(sample) == prompt([], "Which?")


def test_an_unpacked_document_that_is_another_makes_other_data(tmp_path: Path) -> None:
    found = []
    for text in ("First.", "Other."):
        write(tmp_path, packed=False)
        (tmp_path / "lcr/Legal/l_1/a.txt").write_text(text)
        found.append(load_task("aa_lcr/qa", edition="official", data_dir=tmp_path).data_digest)
    assert len(set(found)) == 2


def test_a_document_that_is_not_there_is_named(tmp_path: Path, words: Tokenizer) -> None:
    rows = [{**ROWS[0], "data_source_filenames": "a.txt;gone.txt"}]
    task: Any = load_task("aa_lcr/qa", edition="official", data_dir=write(tmp_path, packed=True, rows=rows))
    with pytest.raises(UsageError, match=r"row 0 needs the document Legal/l_1/gone\.txt"):
        list(task.samples(words, 5000, 1, 42))


def test_both_versions_are_known_by_their_hash_and_files_that_lack_are_named(tmp_path: Path) -> None:
    table, texts = data.assets("aa_lcr")
    assert sorted(table.known.values()) == ["AA-LCR-1.0-bdae010", "AA-LCR-1.1-9a77ef5"]
    assert len(texts.known) == 1
    with pytest.raises(UsageError, match="kleval data fetch aa_lcr"):
        load_task("aa_lcr/qa", edition="official", data_dir=tmp_path)


def test_an_archive_that_is_none_is_told(tmp_path: Path, words: Tokenizer) -> None:
    write(tmp_path, packed=True)
    (tmp_path / "extracted_text/AA-LCR_extracted-text.zip").write_text("no archive")
    task: Any = load_task("aa_lcr/qa", edition="official", data_dir=tmp_path)
    with pytest.raises(UsageError, match="cannot be read"):
        list(task.samples(words, 5000, 1, 42))
