"""The work loop: a command as a Job, and the one loop that every resumable command goes through.

job.py says how a Job is written, loop.py does it, events.py is what is told meanwhile, result.py what it came to.
"""

from kleval.work.job import Job, Session, Verdict
from kleval.work.loop import work
from kleval.work.result import EXIT_CODES, Result
from kleval.work.unit import Spec, Unit

__all__ = ["EXIT_CODES", "Job", "Result", "Session", "Spec", "Unit", "Verdict", "work"]
