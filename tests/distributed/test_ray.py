"""A run on Ray's actors, on a cluster of two nodes on this machine, is the run of one process, whatever happens to nodes and driver."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
from harness_fakes import ALL, TASKS, EchoBackend, comparable, go, loader, open_deadly, open_echo, open_waiting, spec

from kleval.harness import run
from kleval.harness.replicas import Replicas
from kleval.profiler import ProfileSpec, profile
from kleval.store import RunStore
from kleval.types import UsageError
from kleval.work import events as ev

ray = pytest.importorskip("ray", reason="ray is not installed: pip install 'ray>=2.50'")

from kleval.work.ray_actors import RayActors  # noqa: E402

pytestmark = pytest.mark.distributed
HERE = Path(__file__)
PATH = os.pathsep.join(map(str, [HERE.parent, HERE.parents[1] / "harness", HERE.parents[2]]))
NODE = {"num_cpus": 2, "object_store_memory": 80 << 20}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", PATH)  # of the workers, which import the fakes too
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        nodes = Cluster()
        try:
            for more in ({"include_dashboard": False}, {}):
                patiently(lambda more=more: nodes.add_node(**NODE, **more))
            yield nodes
        finally:
            nodes.shutdown()


@pytest.fixture(autouse=True)
def disconnected() -> Iterator[None]:
    yield
    ray.shutdown()


def on_ray(
    address: str, out: Path, open_on: Any, tell: Callable[[Any], None] = lambda event: None, **changes: Any
) -> Any:
    asked = spec(out, **{"tasks": ALL, "executor": "ray", **changes})
    return run(asked, partial(Replicas, RayActors(address, None), open_on), loader(*TASKS), tell)


def test_two_thousand_samples_are_those_of_one_process_none_twice_none_lost(cluster: Any, tmp_path: Path) -> None:
    asked = {"tasks": ("fake/one",), "limit": 1000}
    assert on_ray(cluster.address, tmp_path / "ray", partial(open_echo, 0.002), **asked).exit_code == 0
    go(tmp_path / "one", EchoBackend(), tasks=TASKS[:1], limit=1000)
    assert comparable(RunStore.open(tmp_path / "ray")) == comparable(RunStore.open(tmp_path / "one"))
    assert len(keys(tmp_path / "ray")) == len(set(keys(tmp_path / "ray"))) == 2000
    assert len(worked(tmp_path / "ray")["devices"]) == 2


def test_a_node_that_is_killed_loses_nothing_and_one_that_joins_works(cluster: Any, tmp_path: Path) -> None:
    n, nodes = 0, [next(node for node in cluster.worker_nodes)]

    def change(event: Any) -> None:
        nonlocal n
        n += isinstance(event, ev.UnitDone) and len(list(folder.iterdir())) == 2  # both have been asked
        if n == 50 and len(nodes) == 1:
            cluster.remove_node(nodes[0], allow_graceful=False)
            nodes.append(patiently(lambda: cluster.add_node(**NODE)))

    folder = tmp_path / "open"
    folder.mkdir()
    result = on_ray(cluster.address, tmp_path / "ray", partial(open_waiting, folder, 3), change, limit=400)
    go(tmp_path / "one", EchoBackend(), limit=400)
    assert result.exit_code == 0
    assert len(nodes) == 2
    assert comparable(RunStore.open(tmp_path / "ray")) == comparable(RunStore.open(tmp_path / "one"))
    assert len(keys(tmp_path / "ray")) == len(set(keys(tmp_path / "ray")))
    assert worked(tmp_path / "ray")["worker_deaths"] >= 1
    assert len(worked(tmp_path / "ray")["devices"]) == 3


def test_a_request_that_kills_three_actors_is_a_failure_and_no_other_is_lost(cluster: Any, tmp_path: Path) -> None:
    asked = {"ctxs": (16,), "tasks": ("fake/one",), "limit": 6}
    result = on_ray(cluster.address, tmp_path / "run", partial(open_deadly, ["w42-1-0"]), **asked)
    rows = list(RunStore.open(tmp_path / "run").rows())
    assert [row.index for row in rows if row.failed] == [1]
    assert len(rows) == 6
    assert "3 workers ended while they answered it" in next(row.failure for row in rows if row.failure)["message"]
    assert result.exit_code == 3


def test_actors_end_with_their_driver_and_the_same_command_goes_on(cluster: Any, tmp_path: Path) -> None:
    out = f"t.Path({str(tmp_path / 'run')!r})"
    code = f"import test_ray as t; t.on_ray({cluster.address!r}, {out}, t.partial(t.open_echo, 0.2), limit=40)"
    driver = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": PATH})
    until(lambda: list(tmp_path.glob("run/samples/*/*.jsonl")))
    there = actors()
    driver.kill()
    driver.wait()
    assert there
    _, alive = psutil.wait_procs(there, timeout=20)
    assert not alive
    before = len(keys(tmp_path / "run"))
    go(tmp_path / "run", EchoBackend(), limit=40)
    assert 0 < before < len(keys(tmp_path / "run")) == len(set(keys(tmp_path / "run"))) == 40 * 2 * len(ALL)


def test_actors_measure_every_point_of_a_profile_once(cluster: Any, tmp_path: Path) -> None:
    few: dict[str, Any] = {"models": ("kimi-linear", "mla"), "ctxs": (128, 272), "repeats": 1, "decode_tokens": 2}
    asked = ProfileSpec(**few, chunk_tokens=64, batches=(1,), prefill="full", out=tmp_path / "run", executor="ray")
    result = profile(asked, launcher=RayActors(cluster.address, None))
    assert (result.status, result.message) == ("complete", "")
    store = RunStore.open(tmp_path / "run")
    found = [point.id for point in store.points()]
    assert len(found) == len(set(found)) == len(result.units)
    assert store.manifest["sessions"][-1]["workers"]["executor"] == "ray"


def test_a_cluster_that_is_not_there_is_told_of(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    began = time.monotonic()
    with pytest.raises(UsageError, match="no Ray cluster at localhost:9 "):
        RayActors("localhost:9", None)
    assert time.monotonic() - began < 10


def worked(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = RunStore.open(out).manifest["sessions"][-1]["workers"]["fake@one"]
    return found


def keys(out: Path) -> list[tuple[str, str, int]]:
    lines = [line for file in out.glob("samples/*/*.jsonl") for line in file.read_text("utf-8").splitlines()]
    return [(row["model"], row["id"], row["repeat"]) for row in map(json.loads, lines)]


def actors() -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter(["cmdline"]):
        if "ray::Worker" in " ".join(process.info["cmdline"] or ()):
            found.append(process)
    return found


def patiently(start: Callable[[], Any]) -> Any:
    """Ray gives a node 30 s to start, whatever else the machine does."""
    for _ in range(2):
        with contextlib.suppress(Exception):
            return start()
    return start()


def until(there: Callable[[], Any]) -> None:
    while not there():
        time.sleep(0.05)
