import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # for stored_runs

from stored_runs import failed, make_profile, make_run, make_skip, profile_writer, ruler_tasks

__all__ = ["failed", "make_profile", "make_run", "make_skip", "profile_writer", "ruler_tasks"]
