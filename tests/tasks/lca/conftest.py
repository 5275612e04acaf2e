"""The official outputs that Long Code Arena's tests compare with, and rows in the official shape."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def golden(fixtures_dir: Path) -> dict[str, Any]:
    return json.loads((fixtures_dir / "golden/lca.json").read_text("utf-8"))


@pytest.fixture
def library_rows() -> list[dict[str, Any]]:
    return [
        {
            "instruction": f"Write a script that plants {i} rows of kelp.",
            "clean_reference": f"from kelp import Farm\n\nFarm(rows={i}).plant()\n",
            "unique_apis": ["Farm", "plant"],
            "project_defined_elements": ["Farm", "plant_rows", "tideLevel"],
            "repo_full_name": "invented__kelp",
        }
        for i in range(1, 4)
    ]


@pytest.fixture
def commit_rows() -> list[dict[str, Any]]:
    diff = "@@ -1 +1 @@\n-x = 1\n+x = 2\n"
    mods = [{"change_type": "MODIFY", "old_path": "a.py", "new_path": "a.py", "diff": diff}]
    return [{"repo": "invented/kelp", "hash": f"{i:040x}", "message": f"Set x to {i}", "mods": mods} for i in range(3)]
