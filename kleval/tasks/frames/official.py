"""google/frames-benchmark: 824 questions, and the Wikipedia articles that each needs, which the data set does not hold.

In the data folder, either test.jsonl with the documents inline (evalscope's shape), or test.tsv, the data set's own file, and beside it
documents.jsonl or saved pages: `.html` or `.txt`, here or in `docs/` or `doc_html/`. A `url_mapping.json` beside them says {file name
without ending: url}; without it a file is named by its url, `https://` left out, `/` and `:` as `_`.

An element of the data's list of links may hold several addresses or a remark behind one (nine questions of 824), an address
of the mobile site (28) or one without its scheme (2): all are looked up as the pages of en.wikipedia.org that they are.
The digest of a result covers the documents (saved pages by name and size). A question is asked with its articles whole or not at all;
those that lack a document are left out, and the revision says of how many there are all.

Prompts (`prompts.toml`) and what is read out of replies: the model's prompt and exact match are modelscope/evalscope's @ fde259d
(frames_adapter.py), the judge's prompt is that of the paper's autorater.
"""

from __future__ import annotations

import ast
import hashlib
import re
from collections.abc import Collection, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from kleval.tasks import data, datafile, packaged, tables
from kleval.tasks.answers import normalize_answer
from kleval.tasks.data import Source
from kleval.tasks.frames.wikipedia import read_page
from kleval.tasks.plain_editions import Asked, Rows, as_it_is
from kleval.types import UsageError

FAMILY = "frames"
BUDGET = 1024
_PAGE_FOLDERS = ("", "docs", "doc_html")
_PAGE_SUFFIXES = (".html", ".htm", ".txt")
_LINKS = (*(f"wikipedia_link_{n}" for n in range(1, 11)), "wikipedia_link_11+")
_LONGEST_NAME = 200
_ADDRESS = re.compile(r"(?:https?://|(?<![\w./-])[a-z-]+(?:\.m)?\.wikipedia\.org/)\S*")
_MOBILE = re.compile(r"(?<=://)([a-z-]+)\.m\.(?=wikipedia\.org/)")
_BY_TITLE = re.compile(r"/w/index\.php\?(?:.*&)?title=([^&:]+)(?:&.*)?$")
Document = tuple[str, str]  # title, text
_PROMPTS = packaged.load("frames/prompts.toml")
_MARK = "the answer is"
# The pattern of the request itself, "TRUE" or "FALSE", is no decision.
_DECISION = re.compile(r"decision[\W_]{0,20}(true|false)\b(?![\W_]{0,5}or\b)", re.IGNORECASE)
_BARE = re.compile(r"[\W_]*(true|false)[\W_]*", re.IGNORECASE)
_LONGEST_BARE_CHARS = 40
Linked = tuple[str, dict[str, Any], tuple[str, ...]]  # where, the row, addresses of its documents


def rows(task_id: str, data_dir: Path | None) -> Rows:
    source = find(data_dir)
    return Rows(task_id, source, lambda ctx: read(source), BUDGET)


def find(data_dir: Path | None) -> Source:
    """The file of questions and, where there is one, that of their documents. UsageError saying what is missing."""
    folder = data.data_folder(FAMILY, data_dir)
    inline = datafile.existing(folder / "test.jsonl")
    if inline is not None and _has_documents(inline):
        sha256 = data.file_sha256(inline)
        return Source((inline,), f"unpinned {inline.name} sha256:{sha256[:16]}, documents inline", sha256)
    status = data.need(FAMILY, "test.tsv", "frames/oracle (official)", data_dir)
    asked = linked(status.path, status.sha256)
    documents = datafile.existing(folder / "documents.jsonl")
    paths = (status.path, documents) if documents else (status.path,)
    found = _documents(paths)
    whole = sum(all(known(url, found) for url in links) for *_, links in asked)
    if not whole:
        raise UsageError(
            f"no question of {status.path} has its documents in {folder}: unpack docs.tar.gz there (tar -xzf), or bring"
            " documents.jsonl with url, title and text, or a test.jsonl with wiki_items"
        )
    named = f"google/frames-benchmark {status.revision or 'unpinned sha256:' + status.sha256[:16]}"
    kind, digest = (documents.name, data.file_sha256(documents)) if documents else ("saved pages", _pages_digest(found))
    revision = f"{named}, {kind} sha256:{digest[:16]}, {whole} of {len(asked)} questions have all their documents"
    return Source(paths, revision, hashlib.sha256(f"{status.sha256}\n{digest}".encode()).hexdigest())


def _has_documents(path: Path) -> bool:
    return "wiki_items" in next(iter(tables.rows(path)))[1]


def read(source: Source) -> Iterator[Asked | None]:
    """The rows, one at a time, in the data's order; None for one whose documents are not all there."""
    if _has_documents(source.path):
        for where, row in tables.rows(source.path):
            yield _asked(where, row, _inline(where, row))
        return
    found = _documents(source.paths)
    for where, row, links in linked(source.path, data.file_sha256(source.path)):
        keys = [known(url, found) for url in links]
        yield _asked(where, row, [_document(found[key], key) for key in keys]) if all(keys) else None


def _asked(where: str, row: dict[str, Any], documents: Sequence[Document]) -> Asked:
    question, answer = (tables.text(where, row, name) for name in ("Prompt", "Answer"))
    meta = {"documents": len(documents), "reasoning": str(row.get("reasoning_types") or ""), "question": question}
    return Asked(as_it_is(question_prompt(context(documents), question)), (answer,), meta)


def _inline(where: str, row: dict[str, Any]) -> list[Document]:
    items = tables.value(where, row, "wiki_items")
    if not isinstance(items, list) or not items:
        raise UsageError(f"{where}: field 'wiki_items' must be a list of documents")
    return [_titled(f"{where} wiki_items {n}", item) for n, item in enumerate(items)]


def _titled(where: str, row: Any) -> Document:
    return tables.text(where, row, "title"), tables.text(where, row, "text")


@lru_cache(maxsize=2)
def linked(path: Path, sha256: str) -> tuple[Linked, ...]:
    return tuple((where, row, _links(where, row)) for where, row in tables.rows(path))


def _links(where: str, row: dict[str, Any]) -> tuple[str, ...]:
    listed: Any = row.get("wiki_links")
    if isinstance(listed, str):
        try:
            listed = ast.literal_eval(listed)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            listed = None
    if not isinstance(listed, list) or not all(isinstance(link, str) for link in listed):
        listed = [str(row.get(name) or "") for name in _LINKS]
    links = tuple(link for element in listed for link in _addresses(element))
    if not links:
        raise UsageError(f"{where}: neither 'wiki_links' nor 'wikipedia_link_1' names a document")
    return links


def _addresses(element: str) -> list[str]:
    """The addresses in an element of a list of links, without the commas between and the remarks behind them; the element
    itself where it holds none."""
    found = [address.rstrip(",") for address in _ADDRESS.findall(re.sub(r",(?=https?://)", ", ", element))]
    return found or ([element.strip()] if element.strip() else [])


def known(url: str, found: Collection[str]) -> str:
    """The form of url under which its document is there, or ""."""
    bare = url.split("#")[0].strip()
    closed = bare + ")" * (bare.count("(") - bare.count(")"))
    once = re.sub(r"%25([0-9A-Fa-f]{2})", r"%\1", closed)
    site = once if "://" in once else f"https://{once}"
    site = _MOBILE.sub(r"\1.", re.sub("^http:", "https:", site))
    titled = _BY_TITLE.sub(r"/wiki/\1", site)
    forms = (url, bare, closed, once, unquote(once), site, unquote(site), titled, unquote(titled))
    return next((name for form in forms for name in (form, _file_name(form)) if name in found), "")


def _file_name(url: str) -> str:
    return url.removeprefix("https://").replace("/", "_").replace(":", "_")[:_LONGEST_NAME]


def _documents(paths: Sequence[Path]) -> dict[str, Any]:
    """Document, or the file of a saved page, by url, or by file name without ending where no url is known. paths: of the questions and,
    where there is one, the file of documents."""
    return _listed(paths[1], data.file_sha256(paths[1])) if len(paths) > 1 else _pages(paths[0].parent)


@lru_cache(maxsize=1)
def _listed(path: Path, sha256: str) -> dict[str, Any]:
    return {tables.text(where, row, "url"): _titled(where, row) for where, row in tables.rows(path)}


def _pages(folder: Path) -> dict[str, Any]:
    found = dict[str, Any]()
    for where in (folder / name for name in _PAGE_FOLDERS):
        by_name = {file.stem: file for file in sorted(where.glob("*")) if file.suffix in _PAGE_SUFFIXES}
        found |= by_name
        path = where / "url_mapping.json"
        mapping = datafile.whole_json(path) if path.is_file() else {}
        if not isinstance(mapping, dict) or not all(isinstance(url, str) for url in mapping.values()):
            raise UsageError(f"{path} must map file names to urls")
        found |= {url: by_name[name] for name, url in mapping.items() if name in by_name}
    return found


def _pages_digest(pages: dict[str, Any]) -> str:
    lines = sorted(f"{file.name}\0{file.stat().st_size}" for file in set(pages.values()))
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _document(found: Document | Path, key: str) -> Document:
    if not isinstance(found, Path):
        return found
    text = datafile.content(found).decode("utf-8", "replace")
    if found.suffix == ".txt":
        return unquote(key.rstrip("/").rsplit("/", 1)[-1]).replace("_", " "), text.strip()
    return read_page(text)


def context(documents: Sequence[Document]) -> str:
    return "\n".join(f"{title}\n{text}" for title, text in documents)


def question_prompt(text: str, question: str) -> str:
    return str(_PROMPTS["question"]).format(text=text, question=question)


def answer_sentence(answer: str) -> str:
    """How a model that does as it is told says it."""
    return f"Therefore, the answer is {answer}."


def judge_prompt(question: str, predicted: str, truth: str) -> str:
    return str(_PROMPTS["judge"]).format(question=question, predicted=predicted, truth=truth)


def extract_answer(text: str) -> str:
    """What follows the last `the answer is`, asterisks left out, without full stops around it; "" where it does not stand."""
    text = text.replace("*", "")
    return text.rsplit(_MARK, 1)[-1].strip().strip(".").strip() if _MARK in text else ""


def exact_match(extracted: str, references: Sequence[str]) -> float:
    """1 when it equals a reference but for case, punctuation, articles and blanks. What is empty then never does."""
    answer = normalize_answer(extracted)
    return float(bool(answer) and any(answer == normalize_answer(reference) for reference in references))


def decision(reply: str) -> bool | None:
    """The last decision in a judge's reply, or a reply that is nothing but TRUE or FALSE. None when there is none."""
    found = _DECISION.findall(reply)
    if found:
        return str(found[-1]).lower() == "true"
    bare = _BARE.fullmatch(reply.strip()[: _LONGEST_BARE_CHARS + 1])
    return bare[1].lower() == "true" if bare else None
