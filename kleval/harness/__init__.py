"""Asking and scoring: what is asked of which model, in what order, again after a failure, and what its answers are worth.

`run(RunSpec(...), open_backend, load_task, on_event)` does a whole command and returns a kleval.work.Result; kleval.work.events is
what it tells on the way. Rows go to kleval.store, numbers come from kleval.tables.
"""

from kleval.harness.job import run
from kleval.harness.spec import RunSpec

__all__ = ["RunSpec", "run"]
