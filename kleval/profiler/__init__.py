"""Profiler: prefill latency, decode time per token, state memory, and what the hardware would allow.

`profile(spec, on_event)` plans, measures and stores points in a run directory; `kleval.profiler.memory` answers from the
configuration alone. Measuring, recording and showing are apart: nothing here prints.
"""

from kleval.profiler.native_job import profile
from kleval.profiler.workload import ProfileSpec

__all__ = ["ProfileSpec", "profile"]
