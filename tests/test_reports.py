"""Published reports: the index says what the pages say, and README's figures are of stored rows."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def index() -> ModuleType:
    spec = importlib.util.spec_from_file_location("reports_index", ROOT / "reports" / "index.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_index_lists_every_published_page_with_its_verdict(index: ModuleType) -> None:
    found = index.MARKS.search((ROOT / "reports" / "README.md").read_text("utf-8"))
    assert found is not None
    assert found[0] == found[1] + index.table() + found[2], "make figures"
    assert found[0].count("\n| [") == len(list((ROOT / "reports").rglob("report.html")))


def test_readme_opens_with_figures_of_published_rows(index: ModuleType) -> None:
    opening = (ROOT / "README.md").read_text("utf-8").split("\n## ")[0]
    assert re.findall(r"\(docs/images/([\w-]+)\.svg\)", opening) == list(index.FIGURES)
    for name, (folders, *_) in index.FIGURES.items():
        assert "<svg" in (index.IMAGES / f"{name}.svg").read_text("utf-8")
        assert all((ROOT / "reports" / folder / "run.json").is_file() for folder in folders)
