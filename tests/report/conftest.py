from stored_profiles import make_profile, profile_writer
from stored_runs import failed, make_run, make_skip, ruler_tasks

__all__ = ["failed", "make_profile", "make_run", "make_skip", "profile_writer", "ruler_tasks"]
