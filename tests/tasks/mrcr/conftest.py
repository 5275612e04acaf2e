"""Invented rows in the shape of openai/mrcr."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Write = Callable[..., list[Path]]


def row(n_turns: int = 6, n_needles: int = 2, words: int = 30, **more: Any) -> dict[str, Any]:
    messages = []
    for i in range(n_turns):
        needle = i < n_needles
        asked = "write a poem about tapirs" if needle else f"write a letter about owls {i}"
        messages += [
            {"role": "user", "content": asked},
            {"role": "assistant", "content": f"Text {i}: " + " ".join(f"w{i}x{j}" for j in range(words))},
        ]
    prefix = f"abcdefgh{n_turns:02d}"
    messages.append({"role": "user", "content": f"Prepend {prefix} to the 2nd (1 indexed) poem about tapirs."})
    return {
        "prompt": json.dumps(messages),
        "answer": prefix + messages[3]["content"],
        "random_string_to_prepend": prefix,
        "n_needles": n_needles,
        "desired_msg_index": 3,
        "total_messages": len(messages),
        "n_chars": sum(len(message["content"]) for message in messages),
        **more,
    }


@pytest.fixture
def mrcr_rows() -> list[dict[str, Any]]:
    return [row(n_turns) for n_turns in (4, 6, 8, 10)]


@pytest.fixture
def write_mrcr(tmp_path: Path) -> Write:
    """Write rows as the newer revision's two files, or, with old=True, as the one file of the older."""

    def write(rows: list[dict[str, Any]], suffix: str = ".jsonl", old: bool = False, n: int = 2) -> list[Path]:
        if old:
            parts = {tmp_path / f"{n}needle{suffix}": rows}
        else:
            dated = [{**one, "date_added": "2025-12-05"} for one in rows]
            folder = tmp_path / f"{n}needle"
            folder.mkdir(exist_ok=True)
            half = (len(rows) + 1) // 2
            parts = {folder / f"{n}needle_{i}{suffix}": part for i, part in enumerate((dated[:half], dated[half:]))}
        for path, part in parts.items():
            if suffix == ".parquet":
                pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
                parquet.write_table(pyarrow.Table.from_pylist(part), path)
            elif suffix == ".json":
                path.write_text(json.dumps(part), encoding="utf-8")
            else:
                path.write_text("".join(json.dumps(one) + "\n" for one in part), encoding="utf-8")
        return list(parts)

    return write
