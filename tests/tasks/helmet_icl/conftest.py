"""The official outputs that HELMET-ICL's tests compare with, and the real data that its loaders are run on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def golden(fixtures_dir: Path) -> dict[str, Any]:
    return json.loads((fixtures_dir / "golden/helmet_icl.json").read_text("utf-8"))


@pytest.fixture(scope="session")
def real_data(fixtures_dir: Path) -> Path:
    """The folder `data` beside the fixtures, with banking77, clinc150 and trec; the test skips without it."""
    folder = fixtures_dir.parent / "data"
    if not all((folder / name).is_dir() for name in ("banking77", "clinc150", "trec")):
        pytest.skip(f"no real data sets at {folder}")
    return folder
