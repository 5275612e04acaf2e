"""The official data with documents inline, listed, or as saved pages."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kleval.tasks.frames.official import context, find, question_prompt, read
from kleval.tasks.plain_editions import Asked
from kleval.types import UsageError

WIKI = "https://en.wikipedia.org/wiki/"


def write_lines(path: Path, rows: list[Any]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def asked(folder: Path) -> list[tuple[int, Asked]]:
    return [(index, row) for index, row in enumerate(read(find(folder))) if row is not None]


def shows(row: Asked, *documents: tuple[str, str]) -> bool:
    return row.build(()) == question_prompt(context(documents), row.meta["question"])


def test_documents_inline_are_taken_as_they_are(tmp_path: Path, inline_rows: list[dict[str, Any]]) -> None:
    write_lines(tmp_path / "test.jsonl", inline_rows)
    assert "documents inline" in find(tmp_path).revision
    rows = [row for _, row in asked(tmp_path)]
    assert [row.references for row in rows] == [("1790",), ("1791",), ("1792",), ("1793",)]
    assert shows(rows[1], *((i["title"], i["text"]) for i in inline_rows[1]["wiki_items"]))
    assert (rows[1].meta["documents"], rows[1].meta["reasoning"]) == (2, "Numerical reasoning | Temporal reasoning")


def test_saved_pages_are_found_by_mapping_name_and_mended_address(pages: Path) -> None:
    assert "2 of 3 questions have all their documents" in find(pages.parent).revision
    (first, one), (second, other) = asked(pages.parent)
    assert (first, second) == (0, 1)
    assert shows(one, ("Heronby", "A town."), ("Brindle mill", "Built in 1790.\nRebuilt & sold."))
    assert (one.meta["documents"], one.meta["reasoning"]) == (2, "a | b")
    assert shows(other, ("Heronby", "A town."))


def test_listed_documents_are_found_by_their_url(tsv: Path) -> None:
    documents = [
        {"url": f"{WIKI}Heronby", "title": "Heronby", "text": "A town."},
        {"url": f"{WIKI}Lost_page", "title": "Lost", "text": "Found."},
    ]
    write_lines(tsv.parent / "documents.jsonl", documents)
    (first, _), (second, other) = asked(tsv.parent)
    assert (first, second) == (1, 2)
    assert shows(other, ("Lost", "Found."))


def test_other_documents_are_other_data(pages: Path) -> None:
    before = find(pages.parent).sha256
    page = pages / "brindle.html"
    page.write_text(page.read_text() + "<p>More.")
    assert find(pages.parent).sha256 != before


def test_questions_without_any_document_are_refused_saying_what_helps(tsv: Path) -> None:
    with pytest.raises(UsageError, match=r"unpack docs\.tar\.gz"):
        find(tsv.parent)


def test_missing_files_are_told_with_what_gets_them(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="kleval data fetch frames"):
        find(tmp_path)


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"Prompt": "Who?", "wiki_items": [{"title": "a", "text": "b"}]}, "field 'Answer' is missing"),
        ({"Prompt": "Who?", "Answer": "me"}, "field 'wiki_items' is missing"),
        ({"Prompt": "Who?", "Answer": "me", "wiki_items": []}, "must be a list of documents"),
        ({"Prompt": "Who?", "Answer": "me", "wiki_items": [{"title": "a"}]}, "field 'text' is missing"),
        ({"Prompt": 3, "Answer": "me", "wiki_items": [{"title": "a", "text": "b"}]}, "must be a text"),
    ],
)
def test_what_is_wrong_with_a_row_is_said_with_its_number(
    tmp_path: Path, inline_rows: list[dict[str, Any]], row: dict[str, Any], said: str
) -> None:
    write_lines(tmp_path / "test.jsonl", [inline_rows[0], row])
    with pytest.raises(UsageError, match=said) as raised:
        list(read(find(tmp_path)))
    assert "test.jsonl row 1" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_question_without_links_and_a_broken_mapping_are_refused(tsv: Path, pages: Path) -> None:
    (pages / "url_mapping.json").write_text("[")
    with pytest.raises(UsageError, match=r"url_mapping\.json is not JSON"):
        find(tsv.parent)
    (pages / "url_mapping.json").write_text("{}")
    tsv.write_text("\tPrompt\tAnswer\twiki_links\n0\tWho?\tme\tnonsense(\n")
    with pytest.raises(UsageError, match=r"test\.tsv row 0: neither"):
        find(tsv.parent)


def test_a_pointer_in_the_place_of_a_page_is_no_document(pages: Path) -> None:
    for page in pages.glob("*.html"):
        page.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 3\n")
    with pytest.raises(UsageError, match="Git LFS pointer"):
        list(read(find(pages.parent)))
