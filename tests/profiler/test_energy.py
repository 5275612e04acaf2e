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


def made_up(moments: list[tuple[float, float]], idle_watts: float = 0.0, step_seconds: float = 0.0) -> Meter:
    """A meter that has read so many joules at these moments."""
    meter = Meter(())
    meter.idle_watts, meter._of = idle_watts, (Counter("made up", lambda: 0.0, step_seconds),)
    meter._moments = moments
    return meter


def test_what_the_machine_takes_when_idle_is_subtracted() -> None:
    meter = made_up([(0.0, 1000.0), (1.0, 1020.0), (3.0, 1120.0)], idle_watts=20.0)
    assert meter.joules(0.0, 1.0) == 0
    assert meter.joules(1.5, 2.5) == pytest.approx(30)


def test_what_is_shorter_than_ten_steps_of_the_counter_has_no_energy() -> None:
    meter = made_up([(0.0, 0.0), (2.0, 100.0)], step_seconds=0.1)
    assert meter.joules(0.5, 1.4) is None
    assert meter.joules(0.5, 1.6) == pytest.approx(55)


def test_the_counter_is_read_while_the_meter_runs_and_idle_is_measured_first() -> None:
    begin = time.perf_counter()
    meter = Meter([Counter("a clock", lambda: 7 * time.perf_counter(), 0.0)], idle_seconds=0.05)
    assert meter.idle_watts == pytest.approx(7, rel=0.5)
    with meter.running():
        time.sleep(0.1)
    assert len(meter._moments) > 2
    assert meter._moments[0][0] > begin + 0.05
    assert meter.describe()["energy_by"] == ["a clock"]


def test_a_round_is_parted_where_every_request_has_its_first_token() -> None:
    meter = made_up([(0.0, 0.0), (1.0, 100.0), (2.0, 140.0)])
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
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    (one,) = counters("cuda:1")
    assert (one.name, one.read()) == ("NVML Some GPU 1", 5.001)
    assert len(counters("cpu", everything=True)) == 2
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    (seen,) = counters("cuda:0")
    assert seen.name == "NVML Some GPU 1"
