"""Energy of what is measured: by counters whose pace is known, and by the files and calls of real ones."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from kleval.profiler import energy
from kleval.profiler.energy import Counter, Meter, counters, round_energy
from kleval.types import Arrival, Trace

WATTS, IDLE_WATTS = 50.0, 20.0


class Clockwork:
    """Joules by the clock: IDLE_WATTS, and WATTS from `busy_since` on."""

    busy_since = float("inf")

    def read(self) -> float:
        now = time.perf_counter()
        return IDLE_WATTS * now + (WATTS - IDLE_WATTS) * max(now - self.busy_since, 0.0)


@pytest.fixture
def meter() -> tuple[Meter, Clockwork]:
    work = Clockwork()
    return Meter([Counter("made up", work.read, 0.001)], idle_seconds=0.1), work


def test_what_the_machine_takes_when_idle_is_subtracted(meter: tuple[Meter, Clockwork]) -> None:
    one, work = meter
    assert one.idle_watts == pytest.approx(IDLE_WATTS)
    with one.running():
        begin = work.busy_since = time.perf_counter()
        time.sleep(0.15)
        end = time.perf_counter()
    found = one.joules(begin, end)
    assert found == pytest.approx((WATTS - IDLE_WATTS) * (end - begin), rel=0.3)  # of one sample's length at both ends


def test_what_is_shorter_than_ten_steps_of_the_counter_has_no_energy(meter: tuple[Meter, Clockwork]) -> None:
    with meter[0].running():
        time.sleep(0.05)
        now = time.perf_counter()
    assert meter[0].joules(now - 0.005, now) is None
    assert meter[0].joules(now - 0.03, now) is not None


def test_a_round_is_parted_where_every_request_has_its_first_token() -> None:
    meter = Meter(())
    meter.idle_watts, meter._of = 0.0, (Counter("made up", lambda: 0.0, 0.0),)
    meter._moments = [(0.0, 0.0), (1.0, 100.0), (2.0, 140.0)]
    trace = Trace(0.0, tuple(Arrival(1 + i / 4, 1) for i in range(5)), output_tokens=5, prompt_tokens=200)
    assert round_energy([trace], meter) == {"joules_per_1k_prompt_tokens": 500.0, "joules_per_output_token": 10.0}


def test_without_a_counter_there_is_no_number() -> None:
    meter = Meter(())
    with meter.running():
        pass
    assert (meter.idle_watts, meter.joules(0.0, 1.0), meter.describe()) == (None, None, {})
    trace = Trace(0.0, (Arrival(1.0, 1), Arrival(2.0, 1)), output_tokens=2, prompt_tokens=8)
    assert round_energy([trace], meter) == {}


def test_rapl_counts_packages_and_its_counter_turns_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("intel-rapl:0", "intel-rapl:0:0"):
        folder = tmp_path / name
        folder.mkdir()
        for file, text in (("name", "package-0"), ("max_energy_range_uj", "1000000"), ("energy_uj", "900000")):
            (folder / file).write_text(text)
    monkeypatch.setattr(energy, "RAPL", tmp_path)
    (one,) = counters("cpu")
    before = one.read()
    (tmp_path / "intel-rapl:0" / "energy_uj").write_text("100000")
    assert (one.name, one.read() - before) == ("RAPL package-0", pytest.approx(0.2))


def test_rapl_that_may_not_be_read_counts_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "intel-rapl:0").mkdir()
    monkeypatch.setattr(energy, "RAPL", tmp_path)
    assert counters("cpu") == []


def test_nvml_counts_in_millijoules(monkeypatch: pytest.MonkeyPatch) -> None:
    nvml = SimpleNamespace(
        nvmlInit=lambda: None,
        nvmlDeviceGetCount=lambda: 2,
        nvmlDeviceGetHandleByIndex=lambda at: at,
        nvmlDeviceGetName=lambda handle: "Some GPU",
        nvmlDeviceGetTotalEnergyConsumption=lambda handle: 5000 + handle,
    )
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    (one,) = counters("cuda:1")
    assert (one.name, one.read()) == ("NVML Some GPU 1", 5.001)
    assert len(counters("cpu", everything=True)) == 2
