"""Invented rows in the shape of openai/graphwalks."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kleval.tasks.graphwalks.task import FILES

Write = Callable[..., Path]


def row(kind: str, nodes: list[str], chars: int = 40, **more: Any) -> dict[str, Any]:
    return {"prompt": f"{kind} {'x ' * (chars // 2)}", "answer_nodes": nodes, "problem_type": kind, **more}


@pytest.fixture
def write_rows(tmp_path: Path) -> Write:
    """Rows of both files as JSON lines, in a folder for --data-dir."""

    def write(short: list[dict[str, Any]], long: list[dict[str, Any]]) -> Path:
        for file, rows in zip(FILES, (short, long), strict=True):
            path = tmp_path / file.replace(".parquet", ".jsonl")
            path.write_text("".join(json.dumps(one) + "\n" for one in rows), encoding="utf-8")
        return tmp_path

    return write
