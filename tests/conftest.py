"""Shared by all tests: where the outputs of official code lie that some of them compare with."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def fixtures_dir() -> Path:
    """The folder named by KLEVAL_FIXTURES, else `shared/fixtures` beside the checkout; the test skips without it."""
    default = Path(__file__).resolve().parents[2] / "shared" / "fixtures"
    folder = Path(os.environ.get("KLEVAL_FIXTURES") or default)
    if not folder.is_dir():
        pytest.skip(f"no official outputs at {folder}: set KLEVAL_FIXTURES to the folder that holds them")
    return folder
