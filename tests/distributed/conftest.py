import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "harness"))  # for harness_fakes, which workers import too


@pytest.fixture(autouse=True, scope="module")
def no_waiting_for_the_disk():
    """fsync takes milliseconds and decides nothing here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda fd: None)
        yield
