"""Service-level objective of one request: the most that its times may be, and the share of requests that must keep to them.

Written `ttft=2s,tpot=50ms`, further `e2e=30s` and `share=95%`; without a share 99 % of the requests must.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from kleval.profiler.served.figures import e2e, has_tpot, tpot, ttft
from kleval.types import Trace, UsageError

SHARE = 0.99
GRAMMAR = "write --slo ttft=2s,tpot=50ms (further: e2e=30s, share=95%)"
_PART = re.compile(r"(ttft|tpot|e2e|share)=(\d+(?:\.\d+)?)(ms|s|%)", re.ASCII)


@dataclass(frozen=True, slots=True)
class Slo:
    """Limits in ms, None where there is none. share: of the requests, failed ones among those that do not keep to it."""

    ttft_ms: float | None = None
    tpot_ms: float | None = None
    e2e_ms: float | None = None
    share: float = SHARE

    def holds(self, trace: Trace) -> bool:
        """Of a request that did not fail. An answer of one token keeps to any time per token."""
        per_token = tpot(trace)[0] if has_tpot(trace) else 0.0
        found = ((self.ttft_ms, ttft(trace)), (self.tpot_ms, per_token), (self.e2e_ms, e2e(trace)))
        return all(limit is None or 1000 * seconds <= limit for limit, seconds in found)


def parse_slo(text: str) -> Slo:
    """UsageError for what does not follow the grammar."""
    found: dict[str, float] = {}
    for part in filter(None, text.replace(" ", "").lower().split(",")):
        match = _PART.fullmatch(part)
        if match is None:
            raise UsageError(f"--slo does not know '{part}': {GRAMMAR}")
        name, number, unit = match.groups()
        if (unit == "%") != (name == "share"):
            raise UsageError(f"--slo {part}: times are in s or ms, a share in %: {GRAMMAR}")
        if name in found:
            raise UsageError(f"--slo names {name} twice: {GRAMMAR}")
        found[name] = float(number) * {"ms": 1.0, "s": 1000.0, "%": 0.01}[unit]
    limits = {f"{name}_ms": value for name, value in found.items() if name != "share"}
    if not limits or 0 in limits.values() or not 0 < found.get("share", SHARE) <= 1:
        raise UsageError(f"--slo {text or 'without a limit'} can never hold, or always: {GRAMMAR}")
    return Slo(**limits, share=found.get("share", SHARE))
