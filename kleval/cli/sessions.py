"""Time, speed and spending of a run over all its sessions, in words."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from kleval.text import duration, number, plural, seconds

if TYPE_CHECKING:
    from kleval.store import RunStore


def spent_words(sessions: Sequence[Mapping[str, Any]], spec: Any) -> str:
    """What all sessions of a run came to, where that was asked about."""
    if spec.price_per_mtok is None and spec.max_requests is None and not sessions[-1].get("paid"):
        return ""
    names = ("requests", "prompt_tokens", "output_tokens", "cached_tokens", "cost")
    kept = [record for session in sessions for record in (session.get("spent", {}), session.get("carried", {}))]
    total = {name: sum(record.get(name, 0) for record in kept) for name in names}
    cached = f" ({total['cached_tokens']:,} of them from the cache)" if total["cached_tokens"] else ""
    cost = f", {total['cost']:.4g} at the price given" if spec.price_per_mtok else ""
    tokens = f"{total['prompt_tokens']:,} tokens read{cached} and {total['output_tokens']:,} written"
    return f"{plural(total['requests'], 'request')}, {tokens}{cost}"


def speed_lines(store: RunStore) -> list[str]:
    """How long a run took over all its sessions, what went through it per second, and what an answer took; none without answers."""
    from kleval.tables.answer_lengths import Answered, quantiles

    answered, sessions = Answered(), store.manifest.get("sessions", ())
    seen = _Seen(sessions)
    for row in store.rows():
        answered.add(row)
        seen.add(row.finished)
    took = seen.seconds()
    of = len({session["shard"] for session in sessions if "shard" in session})
    together = f" of {of} shards together" if of else ""
    if not answered.tokens:
        return []
    through = ""
    if took:
        prompts, answers = answered.prompt_tokens / took, sum(answered.tokens) / took
        through = f", {number(prompts)} prompt and {number(answers)} answer tokens/s"
    p50, p99 = quantiles(answered.seconds, (0.5, 0.99)) or (None, None)
    each = "" if p50 is None else f"; per answer p50 {seconds(p50)}, p99 {seconds(p99)}"
    return [f"time      {duration(took)}{together} for {plural(len(answered.tokens), 'answer')}{through}{each}"]


class _Seen:
    """When each session of a run was last seen at work: its end, or of one that was killed what it last wrote."""

    def __init__(self, sessions: Sequence[Mapping[str, Any]]) -> None:
        self._began = [str(session.get("started") or "") for session in sessions]
        self._last = [str(s.get("finished") or s.get("seen") or s.get("started") or "") for s in sessions]
        self._killed = [not (session.get("finished") or "shard" in session) for session in sessions]

    def add(self, finished: str) -> None:
        """A row's time. Shards ran at the same time, so that a row does not tell which of them filed it."""
        place = bisect_right(self._began, finished) - 1
        if place >= 0 and self._killed[place]:
            self._last[place] = max(self._last[place], finished)

    def seconds(self) -> float:
        """Of all sessions together."""
        spans = [(began, last) for began, last in zip(self._began, self._last, strict=True) if began]
        return sum(
            (datetime.fromisoformat(last) - datetime.fromisoformat(began)).total_seconds() for began, last in spans
        )
