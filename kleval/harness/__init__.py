"""plan -> run: what is asked of which model, in what order, again after a failure, and how it ends.

`run(RunSpec(...), open_backend, load_task, on_event)` does a whole command and returns a RunResult; events.py says what it
tells on the way. Rows go to kleval.store, numbers come from kleval.tables.intervals.
"""

from kleval.harness.events import Event, Finished, Planned, Progress, Retrying, RowDone, Skipped, Started, TaskFailed
from kleval.harness.plan import Plan, PlannedCell, Skip
from kleval.harness.run import run
from kleval.harness.spec import RunResult, RunSpec

__all__ = [
    "Event",
    "Finished",
    "Plan",
    "Planned",
    "PlannedCell",
    "Progress",
    "Retrying",
    "RowDone",
    "RunResult",
    "RunSpec",
    "Skip",
    "Skipped",
    "Started",
    "TaskFailed",
    "run",
]
