"""google/frames-benchmark: 824 questions, and the Wikipedia articles that each needs, which the data set does not hold.

In the data folder, either

test.jsonl (or another format)   rows with `Prompt`, `Answer` and `wiki_items`, a list of {title, text} (evalscope's shape)

or test.tsv, the data set's own file (or the same rows in another format), with its documents beside it:

documents.jsonl (another format)    rows with `url`, `title` and `text`
saved pages                         `.html` or `.txt` here or in `docs/` or `doc_html/` (MLPerf's docs.tar.gz, unpacked); a
                                    `url_mapping.json` beside them says {file name without ending: url}, without it a
                                    file is named by its url, `https://` left out, `/` and `:` as `_`

An element of the data's list of links may hold several addresses or a remark behind one (nine questions of 824), an address
of the mobile site (28) or one without its scheme (2): all are looked up as the pages of en.wikipedia.org that they are.

Wikipedia changes and the data set names no revision of a page, so that scores on documents of different days are not
quite comparable; the digest of a result covers the documents (saved pages by name and size). Questions that lack a
document are left out, and the revision says of how many there are all.
"""

from __future__ import annotations

import ast
import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from kleval.tasks import data, datafile, tables
from kleval.tasks.data import Source
from kleval.tasks.frames.prompts import Document
from kleval.tasks.frames.wikipedia import read_page
from kleval.types import UsageError

FAMILY = "frames"
_PAGE_FOLDERS = ("", "docs", "doc_html")
_PAGE_SUFFIXES = (".html", ".htm", ".txt")
_LINKS = (*(f"wikipedia_link_{n}" for n in range(1, 11)), "wikipedia_link_11+")
_LONGEST_NAME = 200
_ADDRESS = re.compile(r"(?:https?://|(?<![\w./-])[a-z-]+(?:\.m)?\.wikipedia\.org/)\S*")
_MOBILE = re.compile(r"(?<=://)([a-z-]+)\.m\.(?=wikipedia\.org/)")
_BY_TITLE = re.compile(r"/w/index\.php\?(?:.*&)?title=([^&:]+)(?:&.*)?$")


@dataclass(frozen=True, slots=True)
class Row:
    """index: of the question in the data. links: addresses of the documents, where these do not stand in the row."""

    index: int
    question: str
    answer: str
    reasoning: str
    links: tuple[str, ...] = ()
    documents: tuple[Document, ...] = field(default=(), repr=False)


def find(data_dir: Path | None) -> Source:
    """The file of questions and, where there is one, that of their documents. UsageError saying what is missing."""
    folder = data.data_folder(FAMILY, data_dir)
    inline = datafile.existing(folder / "test.jsonl")
    if inline is not None and _has_documents(inline):
        sha256 = data.file_sha256(inline)
        return Source((inline,), f"unpinned {inline.name} sha256:{sha256[:16]}, documents inline", sha256)
    status = data.need(FAMILY, "test.tsv", "frames/oracle (official)", data_dir)
    asked = _read_questions(status.path, status.sha256)
    documents = datafile.existing(folder / "documents.jsonl")
    if documents is not None:
        found: set[str] = set(_listed(documents, data.file_sha256(documents)))
        of_documents = data.file_sha256(documents)
    else:
        pages = _pages(folder)
        found = set(pages)
        of_documents = _pages_digest(pages)
    whole = sum(all(_known(url, found) for url in one.links) for one in asked)
    if not whole:
        raise UsageError(
            f"no question of {status.path} has its documents in {folder}: unpack docs.tar.gz there (tar -xzf), or bring"
            " documents.jsonl with url, title and text, or a test.jsonl with wiki_items"
        )
    named = f"google/frames-benchmark {status.revision or 'unpinned sha256:' + status.sha256[:16]}"
    kind = documents.name if documents is not None else "saved pages"
    revision = f"{named}, {kind} sha256:{of_documents[:16]}, {whole} of {len(asked)} questions have all their documents"
    sha256 = hashlib.sha256(f"{status.sha256}\n{of_documents}".encode()).hexdigest()
    return Source((status.path, documents) if documents else (status.path,), revision, sha256)


def _has_documents(rows: Path) -> bool:
    return "wiki_items" in next(iter(tables.rows(rows)))[1]


def read(source: Source) -> Iterator[Row]:
    """The rows whose documents are there, one at a time, in the data's order."""
    if _has_documents(source.path):
        for index, (where, row) in enumerate(tables.rows(source.path)):
            yield _inline(index, where, row)
        return
    documents = source.paths[1:]
    listed = _listed(documents[0], data.file_sha256(documents[0])) if documents else {}
    pages = {} if documents else _pages(source.path.parent)
    for asked in _read_questions(source.path, data.file_sha256(source.path)):
        keys = [_known(url, listed or pages) for url in asked.links]
        if all(keys):
            shown = tuple(listed[key] if listed else _page(pages[key], key) for key in keys if key)
            yield replace(asked, documents=shown)


def _inline(index: int, where: str, row: dict[str, Any]) -> Row:
    items = tables.value(where, row, "wiki_items")
    if not isinstance(items, list) or not items:
        raise UsageError(f"{where}: field 'wiki_items' must be a list of documents")
    documents = []
    for n, item in enumerate(items):
        inside = f"{where} wiki_items {n}"
        documents.append((tables.text(inside, item, "title"), tables.text(inside, item, "text")))
    return replace(_row(index, where, row), documents=tuple(documents))


def _row(index: int, where: str, row: dict[str, Any], links: tuple[str, ...] = ()) -> Row:
    reasoning = str(row.get("reasoning_types") or "")
    return Row(index, tables.text(where, row, "Prompt"), tables.text(where, row, "Answer"), reasoning, links)


@lru_cache(maxsize=2)
def _read_questions(path: Path, sha256: str) -> tuple[Row, ...]:
    return tuple(_asked(index, where, row) for index, (where, row) in enumerate(tables.rows(path)))


def _asked(index: int, where: str, row: dict[str, Any]) -> Row:
    listed: Any = row.get("wiki_links")
    if isinstance(listed, str):
        try:
            listed = ast.literal_eval(listed)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            listed = None
    if not isinstance(listed, list) or not all(isinstance(link, str) for link in listed):
        listed = [str(row.get(name) or "") for name in _LINKS]
    links = [link for element in listed for link in _addresses(element)]
    if not links:
        raise UsageError(f"{where}: neither 'wiki_links' nor 'wikipedia_link_1' names a document")
    return _row(index, where, row, tuple(links))


def _addresses(element: str) -> list[str]:
    """The addresses in an element of a list of links, without the commas between and the remarks behind them; the element
    itself where it holds none."""
    found = [address.rstrip(",") for address in _ADDRESS.findall(re.sub(r",(?=https?://)", ", ", element))]
    return found or ([element.strip()] if element.strip() else [])


def _known(url: str, found: set[str] | dict[str, Any]) -> str:
    """The form of url under which its document is there, or ""."""
    bare = url.split("#")[0].strip()
    closed = bare + ")" * (bare.count("(") - bare.count(")"))
    once = re.sub(r"%25([0-9A-Fa-f]{2})", r"%\1", closed)
    site = once if "://" in once else f"https://{once}"
    site = _MOBILE.sub(r"\1.", re.sub("^http:", "https:", site))
    titled = _BY_TITLE.sub(r"/wiki/\1", site)
    for form in (url, bare, closed, once, unquote(once), site, unquote(site), titled, unquote(titled)):
        if form in found:
            return form
        if _file_name(form) in found:
            return _file_name(form)
    return ""


def _file_name(url: str) -> str:
    return url.removeprefix("https://").replace("/", "_").replace(":", "_")[:_LONGEST_NAME]


@lru_cache(maxsize=1)
def _listed(path: Path, sha256: str) -> dict[str, Document]:
    return {
        tables.text(where, row, "url"): (tables.text(where, row, "title"), tables.text(where, row, "text"))
        for where, row in tables.rows(path)
    }


def _pages(folder: Path) -> dict[str, Path]:
    """Url, or file name without ending where no url is known -> file."""
    found: dict[str, Path] = {}
    for where in (folder / name for name in _PAGE_FOLDERS):
        files = sorted(where.iterdir()) if where.is_dir() else []
        by_name = {file.name[: -len(file.suffix)]: file for file in files if file.suffix in _PAGE_SUFFIXES}
        found |= by_name
        mapping = where / "url_mapping.json"
        if mapping.is_file():
            found |= {url: by_name[name] for name, url in _mapping(mapping).items() if name in by_name}
    return found


def _mapping(path: Path) -> dict[str, str]:
    found = datafile.whole_json(path)
    if not isinstance(found, dict) or not all(isinstance(url, str) for url in found.values()):
        raise UsageError(f"{path} must map file names to urls")
    return found


def _pages_digest(pages: dict[str, Path]) -> str:
    lines = sorted(f"{file.name}\0{file.stat().st_size}" for file in set(pages.values()))
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _page(path: Path, key: str) -> Document:
    text = datafile.content(path).decode("utf-8", "replace")
    if path.suffix == ".txt":
        return unquote(key.rstrip("/").rsplit("/", 1)[-1]).replace("_", " "), text.strip()
    return read_page(text)
