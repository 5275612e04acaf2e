import os

import pytest


@pytest.fixture(autouse=True)
def no_waiting_for_the_disk(monkeypatch):
    """fsync takes milliseconds and decides nothing here; tests/store has the real one."""
    monkeypatch.setattr(os, "fsync", lambda fd: None)
