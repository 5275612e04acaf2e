"""Laws of an engine: whether what answers requests computes the model that it says, found by what a right one obeys.

engine.py asks, trial.py compares two readings, yardstick.py says how large rounding may be, laws/ has one file per law, judge.py makes
verdicts of trials, job.py is the command's Job.
"""

from kleval.verify.job import verify
from kleval.verify.spec import VerifySpec

__all__ = ["VerifySpec", "verify"]
