"""Profile of a served model at its caller: TTFT, TPOT, end-to-end time and throughput at a concurrency.

`profile_served(ServedSpec, on_event)` measures an OpenAI-compatible server or vLLM in this process, into the same kind of run
directory as `kleval.profiler.profile`. What cannot be known of a served model (state bytes, bounds) is absent.
"""

from kleval.profiler.served.spec import ServedSpec

__all__ = ["ServedSpec"]
