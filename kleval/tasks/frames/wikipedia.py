"""Wikipedia's HTML as plain text: the article's title, and its text without tables of contents, references and menus.

Of the page, what stands in `mw-content-text` where it has that, else in `body`. Every block is a line of its own.
"""

from __future__ import annotations

import re
from functools import partial
from html.parser import HTMLParser

from kleval.tasks import packaged

_words = partial(packaged.words, "frames/wikipedia.toml")
_SKIPPED_TAGS = frozenset(_words("skipped_tags"))
_SKIPPED_CLASSES = frozenset(_words("skipped_classes"))
_VOID = frozenset(_words("void"))
_BLOCKS = frozenset(_words("blocks"))
_CELLS = frozenset(_words("cells"))
_CONTENT = "mw-content-text"
_SITE = re.compile(r"\s+[-–—]\s+Wikipedia.*$")


class _Page(HTMLParser):
    """content_id: of the element that is read; None: `body`. bare: there is neither, and everything is read."""

    def __init__(self, content_id: str | None, bare: bool) -> None:
        super().__init__(convert_charrefs=True)
        self.title: list[str] = []
        self.text: list[str] = []
        self._content_id = content_id
        self._in_title = False
        # Open elements inside what is read, each with whether it is skipped; None outside.
        self._open: list[tuple[str, bool]] | None = [("", False)] if bare else None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "title" and not self.title:
            self._in_title = True
        given = {name: value or "" for name, value in attrs}
        if self._open is None:
            if given.get("id") == self._content_id if self._content_id else tag == "body":
                self._open = [(tag, False)]
            return
        skipped = bool(self._open) and self._open[-1][1]
        self._space(tag, skipped)
        if tag not in _VOID:
            classes = set(given.get("class", "").split())
            self._open.append((tag, skipped or tag in _SKIPPED_TAGS or bool(_SKIPPED_CLASSES & classes)))

    def handle_endtag(self, tag: str) -> None:
        if tag == "title":
            self._in_title = False
        # An element that is never closed ends with the one around it.
        if self._open and any(tag == one for one, _ in self._open):
            while True:
                closed, skipped = self._open.pop()
                if closed == tag:
                    break
            self._space(tag, skipped)

    def handle_data(self, data: str) -> None:
        if self._in_title:
            self.title.append(data)
        elif self._open and not self._open[-1][1]:
            self.text.append(data)

    def parse_marked_section(self, i: int, report: bool = True) -> int:
        """Of `<![word[` where the parser knows no such word, and fails: to the next `>`."""
        try:
            return super().parse_marked_section(i, report)
        except AssertionError:
            return self.rawdata.find(">", i) + 1 or -1

    def _space(self, tag: str, skipped: bool) -> None:
        if not skipped and (tag in _BLOCKS or tag in _CELLS):
            self.text.append("\n" if tag in _BLOCKS else " ")


def read_page(html: str) -> tuple[str, str]:
    """(title, text). Whatever is given, something comes back."""
    content_id = _CONTENT if f'id="{_CONTENT}"' in html else None
    page = _Page(content_id, bare=content_id is None and "<body" not in html)
    page.feed(html)
    page.close()
    lines = (" ".join(line.split()) for line in "".join(page.text).split("\n"))
    title = _SITE.sub("", " ".join("".join(page.title).split()))
    return title, "\n".join(line for line in lines if line)
