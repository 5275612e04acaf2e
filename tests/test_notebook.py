"""The manual's notebook: its cells run, and what is stored beside them is what they show."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import notebooks
import pytest

PATH = Path(__file__).parent.parent / "docs" / "in_a_notebook.ipynb"


def kinds(outputs: list[dict[str, Any]]) -> list[tuple[str, ...]]:
    return [(one["output_type"], one.get("name", ""), *sorted(one.get("data", {}))) for one in outputs]


def test_its_cells_run_and_show_what_is_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    notebook = notebooks.read(PATH)
    shown = list(notebooks.run(notebook))
    stored = [cell["outputs"] for cell in notebooks.code(notebook)]
    assert [kinds(outputs) for outputs in shown] == [kinds(outputs) for outputs in stored]
    assert {path.name for path in tmp_path.iterdir()} == {"runs", "page.html", "scores.csv"}


def test_it_is_stored_whole_small_and_without_a_fault() -> None:
    notebook = notebooks.read(PATH)
    cells = notebooks.code(notebook)
    assert [cell["execution_count"] for cell in cells] == [*range(1, len(cells) + 1)]
    outputs = [one for cell in cells for one in cell["outputs"]]
    assert {one["output_type"] for one in outputs} == {"stream", "execute_result"}
    assert any("12/12 answers" in "".join(one.get("text", "")) for one in outputs)
    assert PATH.stat().st_size < 60_000
    assert "/tmp" not in PATH.read_text("utf-8")


def test_a_cell_that_raises_ends_it() -> None:
    cells = [{"cell_type": "code", "source": [line]} for line in ("1 + 1", "1 / 0", "print('not reached')")]
    ran = notebooks.run({"cells": cells})
    assert next(ran)[0]["data"] == {"text/plain": ["2"]}
    with pytest.raises(ZeroDivisionError):
        next(ran)
