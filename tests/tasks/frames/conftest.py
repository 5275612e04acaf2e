"""The official outputs that FRAMES' tests compare with, and a small data set in the official shape."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

WIKI = "https://en.wikipedia.org/wiki/"


@pytest.fixture(scope="session")
def golden(fixtures_dir: Path) -> dict[str, Any]:
    return json.loads((fixtures_dir / "golden/frames.json").read_text("utf-8"))


@pytest.fixture
def inline_rows() -> list[dict[str, Any]]:
    return [
        {
            "Prompt": f"In which year was mill {i} of the town {{heron}} built?",
            "Answer": str(1790 + i),
            "reasoning_types": "Numerical reasoning | Temporal reasoning",
            "wiki_items": [
                {
                    "title": f"Heronby {i}",
                    "text": f"Heronby is a town.\n\nIts mill is Brindle mill {i}." + " Reed." * 40 * i,
                },
                {"title": f"Brindle mill {i}", "text": f"Built in {1790 + i}. 100 % of it {{stands}}."},
            ],
        }
        for i in range(4)
    ]


@pytest.fixture
def tsv(tmp_path: Path) -> Path:
    """test.tsv: three questions; the first by wiki_links, the second by its columns, the third without its document."""
    names = ["", "Prompt", "Answer", *(f"wikipedia_link_{n}" for n in range(1, 11)), "wikipedia_link_11+"]
    names += ["reasoning_types", "wiki_links"]
    links = [f"{WIKI}Heronby#Mills", f"{WIKI}Brindle_mill_(north"]
    rows = [
        {
            "": 0,
            "Prompt": "When was the mill built?",
            "Answer": "1790",
            "wiki_links": str(links),
            "reasoning_types": "a | b",
        },
        {
            "": 1,
            "Prompt": "Where does it stand?",
            "Answer": "Heronby",
            "wikipedia_link_1": f"{WIKI}Heronby",
            "wiki_links": "",
        },
        {"": 2, "Prompt": "Who built it?", "Answer": "Nobody", "wiki_links": str([f"{WIKI}Lost_page"])},
    ]
    path = tmp_path / "test.tsv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, names, delimiter="\t")
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.fixture
def pages(tsv: Path) -> Path:
    """Saved pages beside test.tsv, named as MLPerf names them."""
    folder = tsv.parent / "doc_html"
    folder.mkdir()
    html = '<html><head><title>{0} - Wikipedia</title></head><body><nav>Menu</nav><div id="mw-content-text">{1}</div></body></html>'
    (folder / "en.wikipedia.org_wiki_Heronby.html").write_text(
        html.format("Heronby", "<p>A town.<sup class='reference'>[1]</sup></p>")
    )
    (folder / "brindle.html").write_text(
        html.format("Brindle mill", "<p>Built in <b>1790</b>.</p><p>Rebuilt &amp; sold.")
    )
    (folder / "url_mapping.json").write_text(json.dumps({"brindle": f"{WIKI}Brindle_mill_(north)"}))
    return folder
