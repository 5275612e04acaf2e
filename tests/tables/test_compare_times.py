"""Two sets of profiles compared: sessions, ratios, and when they decide nothing."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import stats

from kleval.store import Point, RunStore
from kleval.tables.compare_times import Place, Timed, TimeLine, level, limits, read_timed, rows, time_line, time_lines
from kleval.tables.conditions import conditions
from kleval.tables.costs import read_profile
from kleval.tables.gate import judge_times
from kleval.types import UsageError

Make = Callable[..., RunStore]
ONE: dict[str, Any] = {"architectures": ("mla",), "ctxs": (4096,), "repeats": 2}
TPOT: Place = ("decode", "batch-1", 4096, "ms_per_token")


def timed(make: Make, name: str, hours: Sequence[int], steps: Sequence[float], gpu: str = "Some GPU") -> list[Any]:
    """One profile per session, each of two repeats around its step."""
    stores = []
    for number, (hour, step) in enumerate(zip(hours, steps, strict=True)):

        def change(point: Point, step: float = step, hour: int = hour) -> Point:
            values = (
                {**point.values, "ms_per_token": step * (1 + 0.01 * point.repeat)}
                if point.kind == "decode"
                else point.values
            )
            when = f"2026-03-01T{hour:02}:30:00+00:00"
            return replace(point, values=values, finished=when, environment={**point.environment, "gpu": gpu})

        started = f"2026-03-01T{hour:02}:00:00+00:00"
        stores.append(make(f"{name}{number}", **ONE, change=change, started=started))
    return read_timed([read_profile(store) for store in stores])


def line(a: list[Any], b: list[Any]) -> TimeLine:
    return next(one for one in time_lines(a[0], b[0]) if one.place == TPOT)


def test_the_ratio_is_over_sessions_with_welchs_interval(make_profile: Make) -> None:
    xs, ys = [10.0, 11.0, 10.5], [12.0, 13.5, 12.4]
    one = line(timed(make_profile, "a", (1, 3, 5), xs), timed(make_profile, "b", (2, 4, 6), ys))
    logs = [np.log(values) for values in (ys, xs)]  # medians of a session's repeats: all by the same factor
    theirs = stats.ttest_ind(*logs, equal_var=False).confidence_interval()
    assert one.ratio.log == pytest.approx(float(logs[0].mean() - logs[1].mean()))
    assert one.ratio.limits() == pytest.approx((math.exp(theirs.low), math.exp(theirs.high)))
    assert one.ratio.p(1.0) == pytest.approx(float(stats.ttest_ind(*logs, equal_var=False).pvalue))
    assert (one.sessions, one.verdict) == ((3, 3), "B takes longer")


@pytest.mark.parametrize(
    ("a", "b", "why"),
    [
        ((1,), (2,), "undecided: 1 and 1 of 3 sessions per side"),
        ((1, 3), (2, 4), "undecided: 2 and 2 of 3 sessions per side"),
        ((1, 2, 3), (4, 5, 6), "undecided: sessions in the order AAABBB, not alternating"),
    ],
)
def test_few_sessions_or_one_after_the_other_decide_nothing(make_profile: Make, a: Any, b: Any, why: str) -> None:
    one = line(timed(make_profile, "a", a, [10.0] * len(a)), timed(make_profile, "b", b, [30.0] * len(b)))
    assert one.verdict == why


def test_other_hardware_decides_nothing(make_profile: Make) -> None:
    a = timed(make_profile, "a", (1, 3, 5), [10.0, 10.1, 10.2])
    b = timed(make_profile, "b", (2, 4, 6), [30.0, 30.1, 30.2], gpu="Another GPU")
    assert line(a, b).verdict == "undecided: other hardware (gpu)"


def test_a_server_on_unknown_hardware_decides_nothing() -> None:
    """Its address says where it is asked, not what it runs on."""

    def side(first: int, **said: str) -> Timed:
        point = Point(
            id="p", model="one", ctx=4096, repeat=0, protocol="batch-1", kind="decode", batch=1, environment=said
        )
        return Timed("one", {f"{2 * i + first}": {TPOT: [10.0 + i]} for i in range(3)}, (point,))

    known = {"server": "http://localhost:8000", "hardware": "8x H200"}
    assert time_line(side(0, **known), side(1, **known), [TPOT]).undecided == ""
    bare = side(0, server="http://localhost:8000")
    assert "not known (--hardware)" in time_line(bare, bare, [TPOT]).undecided


def test_bytes_are_counted_and_need_no_session(make_profile: Make) -> None:
    a = timed(make_profile, "a", (1,), [10.0])
    one = time_line(a[0], a[0], [("memory", "state", 4096, "state_bytes")])
    assert (one.ratio.limits(), one.verdict) == ((1.0, 1.0), "no difference shown")


def test_bytes_come_back_as_they_were_counted_and_are_not_beyond_that_number() -> None:
    counted = 4194304
    place: Place = ("memory", "state", 2048, "state_bytes")
    side = Timed("one", {"a session": {place: [float(counted)]}}, ())
    one = time_line(side, side, [place])
    assert (one.a, one.b, one.ratio.value) == (counted, counted, 1.0)
    (condition,) = conditions([f"state@2k > {counted}"])
    judged = judge_times(condition, side, None)
    assert judged is not None
    assert (judged.verdict, judged.value) == ("pass", counted)


def test_no_fewer_sessions_are_called_for_than_a_verdict_takes(make_profile: Make) -> None:
    (side,) = timed(make_profile, "a", (1, 3), [10.0, 10.001])
    (decode,) = [row for row in rows(side, side, 0.1) if row["protocol"] == "batch-1"]
    assert decode["verdict"].startswith("undecided: 2 and 2 of 3 sessions")
    assert decode["sessions_for_effect"] == 3


def test_sessions_of_one_directory_are_told_apart(make_profile: Make) -> None:
    sessions = [{"started": f"2026-03-01T0{hour}:00:00+00:00"} for hour in (1, 9)]
    later = lambda point: replace(point, finished=f"2026-03-01T{9 * point.repeat + 1:02}:30:00+00:00")  # noqa: E731
    (found,) = read_timed([read_profile(make_profile(**ONE, sessions=sessions, change=later))])
    assert [len(session[TPOT]) for session in found.sessions.values()] == [1, 1]


def test_rounds_limited_by_the_client_are_left_out_and_named(make_profile: Make) -> None:
    slow = lambda point: replace(point, values={**point.values, "client_limited": 1 if point.repeat else None})  # noqa: E731
    (found,) = read_timed([read_profile(make_profile(**ONE, change=slow))])
    assert [len(session[TPOT]) for session in found.sessions.values()] == [1]
    assert found.limited > 0
    assert "limited by the client" in limits([found])[0]


def test_a_profile_that_went_on_in_another_session_names_the_lengths_to_ask_for(make_profile: Make) -> None:
    (found,) = timed(make_profile, "a", (1, 3), [10.0, 10.0])
    other: Place = ("decode", "batch-1", 8192, "ms_per_token")
    first, second = found.sessions.values()
    apart = replace(found, sessions={"1": {TPOT: first[TPOT]}, "2": {other: second[TPOT]}})
    with pytest.raises(UsageError, match=r"no session of .* measured all of 4k, 8k: name one length, as @4k"):
        level(apart, [TPOT, other])
