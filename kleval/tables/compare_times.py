"""Comparison of the costs in two sets of profiles, A and B: ratios B / A with their intervals.

Repeats of one session share the machine's state, and sessions of one machine differ by 20 to 100 %, so the session is the unit: its
value is the median over its repeats. The ratio is that of the geometric means over sessions, with Welch's 95 % interval on the
logarithms. With a single session on a side the interval is of its repeats, says nothing about another session and decides nothing.
To decide takes MIN_SESSIONS sessions per side, on one hardware, in alternating order. Bytes of state are counted, not timed: they
have no interval and need no sessions.

A session is one time that a profile's command ran; a directory may hold several, and several directories may be given.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median, stdev
from typing import Any

from kleval.store import Point
from kleval.tables.costs import KIND_ORDER, METRIC, UNITS, Profile
from kleval.tables.paired import ALPHA, MOST, POWER
from kleval.tables.ratios import kernel_shape
from kleval.tables.scores import versus
from kleval.text import DASH, format_length, number, plural, times
from kleval.types import UsageError

HEADS = ("what", "ctx", "A", "B", "B / A", "95 %", "interval of", "sessions", "sessions for effect", "verdict")
MIN_SESSIONS = 3
MOST_IN_A_ROW = 2  # sessions of one side; more is no alternation
HARDWARE = ("cpu", "cores", "gpu", "hardware")
SOFTWARE = ("driver", "torch", "threads", "vllm", "server_software", "kleval", "commit")
SETTINGS = ("dtype", "device", "backend", "chunk_tokens", "decode_tokens", "prompts", "server", "seed")

Place = tuple[str, str, int, str]  # kind, protocol, ctx, value


@dataclass(frozen=True, slots=True)
class Timed:
    """A model's measurements in one set of profiles. sessions: by start, the repeats' values at each place. limited: rounds left out,
    because the client was too slow for what it measured."""

    model: str
    sessions: Mapping[str, Mapping[Place, Sequence[float]]]
    points: tuple[Point, ...]
    limited: int = 0

    def facts(self, name: str) -> str:
        """What all points say of the hardware, software or a setting."""
        found = {str(v) for p in self.points if (v := p.environment.get(name, p.settings.get(name))) is not None}
        return ", ".join(sorted(found))


def raised(log: float) -> float:
    """What the logarithm is of, to the twelve digits that it holds: counted bytes come back as they were counted."""
    return float(f"{math.exp(log):.12g}")


@dataclass(frozen=True, slots=True)
class Estimate:
    """Logarithm of a ratio or of a value, with its standard error and degrees of freedom; both 0 for what is counted."""

    log: float
    error: float = math.nan
    freedom: float = 0.0

    @property
    def value(self) -> float:
        return raised(self.log)

    def limits(self) -> tuple[float, float]:
        from scipy.special import stdtrit

        if self.error == 0:
            return self.value, self.value
        half = float(stdtrit(self.freedom, 1 - ALPHA / 2)) * self.error if self.freedom else math.nan
        return math.exp(self.log - half), math.exp(self.log + half)

    def p(self, threshold: float) -> float:
        """Two-sided, of the ratio being the threshold; 1 where nothing is known of the error."""
        from scipy.special import stdtr

        gap = abs(self.log - math.log(threshold))
        if self.error == 0:
            return 0.0 if gap > 1e-12 else 1.0
        return 1.0 if math.isnan(self.error) else float(2 * stdtr(self.freedom, -gap / self.error))

    def needed(self, gap: float, n: int) -> int:
        """Sessions per side that show a gap of logarithms with POWER, if they spread as these n do; MOST where none would."""
        from scipy.special import stdtrit

        if self.error == 0:
            return n
        if math.isnan(self.error) or not gap:
            return MOST

        def shows(k: int) -> bool:
            freedom = max(self.freedom * (k - 1) / max(n - 1, 1), 1)
            quantiles = stdtrit(freedom, 1 - ALPHA / 2) + stdtrit(freedom, POWER)
            return bool(quantiles * self.error * math.sqrt(n / k) <= abs(gap))

        return min(2 + bisect_left(range(2, MOST), True, key=shows), MOST)


@dataclass(frozen=True, slots=True)
class TimeLine:
    """B against A at one place. a, b: geometric means over sessions. undecided: why no verdict can rest on it, "" where it can."""

    place: Place
    a: float
    b: float
    ratio: Estimate
    sessions: tuple[int, int]
    undecided: str

    @property
    def verdict(self) -> str:
        low, high = self.ratio.limits()
        if self.undecided:
            return f"undecided: {self.undecided}"
        more, less = ("takes longer", "is faster") if self.place[0] != "memory" else ("holds more", "holds less")
        return f"B {more}" if low > 1 + 1e-12 else f"B {less}" if high < 1 - 1e-12 else "no difference shown"


def read_timed(profiles: Sequence[Profile]) -> list[Timed]:
    """Every model of the profiles. The same model of several profiles is one, in several sessions."""
    found: dict[str, dict[str, dict[Place, list[float]]]] = {}
    points: dict[str, list[Point]] = {}
    limited: Counter[str] = Counter()
    for i, profile in enumerate(profiles):
        starts = [str(session.get("started", "")) for session in profile.get("sessions", default=[])]
        starts = starts or [str(profile.get("started", default=""))]
        for point in profile.points:
            values = {name: point.values.get(name) for name in {METRIC.get(point.kind, ""), *_also(point.kind)}}
            if point.failed or point.kind == "machine" or not any(values.values()):
                continue
            if point.values.get("client_limited"):
                limited[point.model] += 1
                found.setdefault(point.model, {})
                points.setdefault(point.model, [])
                continue
            start = max((s for s in starts if s <= point.finished), default=starts[0])
            heads, head_dim = kernel_shape(point)
            protocol = f"{point.protocol}, {heads} heads of {head_dim}" if heads else point.protocol
            session = found.setdefault(point.model, {}).setdefault(f"{start} {i}", {})
            for name, value in values.items():
                if value:
                    session.setdefault((point.kind, protocol, point.ctx, name), []).append(value)
            points.setdefault(point.model, []).append(point)
    return [Timed(model, dict(sorted(of.items())), tuple(points[model]), limited[model]) for model, of in found.items()]


def time_lines(a: Timed, b: Timed) -> list[TimeLine]:
    """One per place that both have. UsageError where there is none."""
    held = [{place for session in side.sessions.values() for place in session} for side in (a, b)]
    places = sorted(held[0] & held[1], key=lambda place: (KIND_ORDER.index(place[0]), *place[1:]))
    if not places:
        raise UsageError(f"{a.model} and {b.model} were not measured in the same way at the same length")
    return [time_line(a, b, [place]) for place in places]


def time_line(a: Timed, b: Timed, places: Sequence[Place]) -> TimeLine:
    """Over several places the mean of their logarithms, session by session."""
    logs = [session_logs(side, places) for side in (a, b)]
    counts = (len(logs[0]), len(logs[1]))
    means = [fmean(values.values()) for values in logs]
    a_mean, b_mean = map(raised, means)
    if places[0][0] == "memory":
        return TimeLine(places[0], a_mean, b_mean, Estimate(means[1] - means[0], 0.0), counts, "")
    spreads = [list(values.values()) for values in logs]
    if min(counts) < 2:
        spreads = [list(_repeats(side, places)) for side in (a, b)]
    ratio = _welch(means[1] - means[0], spreads)
    return TimeLine(places[0], a_mean, b_mean, ratio, counts, why_undecided(logs, a, b))


def level(side: Timed, places: Sequence[Place]) -> tuple[Estimate, int, str]:
    """One side's value over sessions, how many there are, and why no verdict can rest on it."""
    logs = list(session_logs(side, places).values())
    if places[0][0] == "memory":
        return Estimate(fmean(logs), 0.0), len(logs), ""
    error = stdev(logs) / math.sqrt(len(logs)) if len(logs) > 1 else math.nan
    why = "" if len(logs) >= MIN_SESSIONS else _too_few((len(logs),))
    return Estimate(fmean(logs), error, len(logs) - 1), len(logs), why


def session_logs(side: Timed, places: Sequence[Place]) -> dict[str, float]:
    """By start of the sessions that have all the places. UsageError where none has."""
    found = {
        start: fmean(math.log(median(session[place])) for place in places)
        for start, session in side.sessions.items()
        if all(place in session for place in places)
    }
    if not found:
        lengths = ", ".join(format_length(ctx) for ctx in sorted({place[2] for place in places}))
        raise UsageError(
            f"no session of {side.model} measured all of {lengths}: name one length, as @{lengths.split(', ')[0]}, or profile"
            " all of them with one command"
        )
    return found


def why_undecided(logs: Sequence[Mapping[str, float]], a: Timed, b: Timed) -> str:
    counts = tuple(len(values) for values in logs)
    if min(counts) < MIN_SESSIONS:
        return _too_few(counts)
    if different := [name for name in HARDWARE if a.facts(name) != b.facts(name)]:
        return f"other hardware ({', '.join(different)})"
    if a.facts("server") and not a.facts("hardware"):
        return "the servers' hardware is not known (--hardware)"
    order = "".join(
        side for _, side in sorted((start, side) for values, side in zip(logs, "AB", strict=True) for start in values)
    )
    if any(side * (MOST_IN_A_ROW + 1) in order for side in "AB"):
        return f"sessions in the order {order}, not alternating"
    return ""


def labels(a: Timed, b: Timed) -> list[str]:
    """What differs in hardware, software and settings, one line each."""
    found = [(name, a.facts(name), b.facts(name)) for name in (*HARDWARE, *SOFTWARE, *SETTINGS)]
    differ = [versus(name, one, other) for name, one, other in found if one != other]
    return [*differ, *limits((a, b))]


def limits(sides: Iterable[Timed]) -> list[str]:
    """What was left out because of the client, a line each."""
    return [
        f"{side.model}: {plural(side.limited, 'round')} left out, limited by the client: measure on a quieter machine"
        for side in sides
        if side.limited
    ]


def rows(a: Timed, b: Timed, effect: float) -> list[dict[str, Any]]:
    """One dict per place; times in their unit, ratios B / A. sessions_for_effect: per side, that show a ratio of 1 + effect."""
    found = []
    for one in time_lines(a, b):
        kind, protocol, ctx, value = one.place
        low, high = one.ratio.limits()
        few = min(one.sessions)
        found.append(
            {
                "record": "ratio",
                "a": a.model,
                "b": b.model,
                "kind": kind,
                "protocol": protocol,
                "ctx": ctx,
                "value": value,
                "unit": UNITS[kind] if value == METRIC[kind] else "ms",
                "value_a": one.a,
                "value_b": one.b,
                "ratio": one.ratio.value,
                "ratio_low": low if math.isfinite(low) else None,
                "ratio_high": high if math.isfinite(high) else None,
                "interval_of": "none" if kind == "memory" else "sessions" if few > 1 else "repeats in one session",
                "sessions_a": one.sessions[0],
                "sessions_b": one.sessions[1],
                "effect": effect,
                "sessions_for_effect": max(MIN_SESSIONS, one.ratio.needed(math.log1p(effect), few))
                if few > 1
                else None,
                "verdict": one.verdict,
            }
        )
    return found


def spelled(row: Mapping[str, Any]) -> list[str]:
    """A row of `rows` in words: HEADS."""
    limits = DASH if row["ratio_low"] is None else f"{row['ratio_low']:.2f} – {row['ratio_high']:.2f}"
    return [
        f"{row['value']} ({row['kind']}, {row['protocol']})",
        format_length(row["ctx"]),
        f"{number(row['value_a'])} {row['unit']}",
        f"{number(row['value_b'])} {row['unit']}",
        times(row["ratio"]),
        limits,
        row["interval_of"],
        f"{row['sessions_a']}/{row['sessions_b']}",
        DASH if row["sessions_for_effect"] is None else f"{row['sessions_for_effect']:,}",
        row["verdict"],
    ]


def _also(kind: str) -> tuple[str, ...]:
    return ("ttft_ms",) if kind == "served" else ()


def _too_few(counts: Sequence[int]) -> str:
    return f"{' and '.join(map(str, counts))} of {MIN_SESSIONS} sessions" + (" per side" if len(counts) > 1 else "")


def _repeats(side: Timed, places: Sequence[Place]) -> list[float]:
    """Logarithms of the repeats of all sessions, places' means where there are several."""
    values = [[math.log(v) for session in side.sessions.values() for v in session.get(place, ())] for place in places]
    return [fmean(one) for one in zip(*values, strict=False)]


def _welch(log: float, sides: Sequence[Sequence[float]]) -> Estimate:
    """Satterthwaite's degrees of freedom."""
    if min(map(len, sides)) < 2:
        return Estimate(log)
    parts = [(stdev(values) ** 2 / len(values), len(values)) for values in sides]
    total = math.fsum(part for part, _ in parts)
    if not total:
        return Estimate(log, 0.0)
    return Estimate(log, math.sqrt(total), total**2 / math.fsum(part**2 / (n - 1) for part, n in parts))
