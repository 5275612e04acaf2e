"""The official outputs that RepoQA's tests compare with, and a small data set in the official shape."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kleval.tasks.repoqa.dataset import FILE

PYTHON = '''"""Ünïcode before the needle: ÄÖÜ."""


def first(x):
    # doubles
    return x * 2


class Box:
    def second(self, y):
        return y + 1


def third(z):
    total = 0
    for item in z:
        total += item
    return total
'''


@pytest.fixture(scope="session")
def golden(fixtures_dir: Path) -> dict[str, Any]:
    return json.loads((fixtures_dir / "golden/repoqa.json").read_text("utf-8"))


def needle(content: str, name: str, path: str) -> dict[str, Any]:
    """A needle's record as the official data have it."""
    lines = content.split("\n")
    first = next(i for i, line in enumerate(lines) if f"def {name}(" in line)
    last = next((i for i in range(first + 1, len(lines)) if not lines[i].strip()), len(lines))
    start = len("\n".join([*lines[:first], ""]).encode()) + len(lines[first]) - len(lines[first].lstrip())
    end = len("\n".join(lines[:last]).encode())
    places = {"start_line": first, "end_line": last, "start_byte": start, "end_byte": end}
    return {"name": name, "path": path, "description": f" What {name[0]} does.", **places}


@pytest.fixture
def small_data() -> dict[str, Any]:
    """A repository of two files and three needles, and a language that is not read."""
    repository = {
        "repo": "invented/box",
        "content": {"box.py": PYTHON, "other.py": "import box\n" * 30},
        "dependency": {"other.py": ["box.py"], "box.py": []},
        "needles": [needle(PYTHON, name, "box.py") for name in ("first", "second", "third")],
    }
    return {"python": [repository], "go": [{"repo": "not/read"}]}


@pytest.fixture
def data_dir(tmp_path: Path, small_data: dict[str, Any]) -> Path:
    """A folder that holds small_data under its official name, unpacked."""
    (tmp_path / FILE.removesuffix(".gz")).write_text(json.dumps(small_data), encoding="utf-8")
    return tmp_path
