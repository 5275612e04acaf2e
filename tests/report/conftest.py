import pytest
from stored_profiles import make_profile, profile_writer
from stored_runs import failed, make_run, make_skip, ruler_tasks

__all__ = ["failed", "make_profile", "make_run", "make_skip", "profile_writer", "ruler_tasks"]


@pytest.fixture(autouse=True)
def _without_stills(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing them takes longer than the rest of a page; test_stills looks at them."""
    monkeypatch.setattr("kleval.report.stills.inside", lambda sections: {})
