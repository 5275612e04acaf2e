"""Laws over HTTP: the same engine behind a server of vLLM's form."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

import pytest
from toy import Toy

from kleval.backends.registry import open_backend
from kleval.backends.spec import BackendSpec
from kleval.store import Point, RunStore
from kleval.tokenization import load_tokenizer
from kleval.types import Backend
from kleval.verify import VerifySpec, verify

pytestmark = pytest.mark.slow


@contextmanager
def served(toy: Toy, small: Path, faults: ModuleType) -> Iterator[Backend]:
    toy.tokenizer = load_tokenizer(f"hf:{small}")
    with faults.serving(toy) as url:
        yield open_backend("toy", "openai", base_url=url, tokenizer=f"hf:{small}")


def verified(backend: Backend, out: Path, *laws: str) -> dict[str, Point]:
    spec = VerifySpec(engine=BackendSpec(model="toy"), ctx=120, laws=laws, out=out, command="kleval verify")
    verify(spec, backend=backend)
    return {point.protocol: point for point in RunStore.open(out).points()}


def test_a_right_server_obeys(tiny: Path, faults: ModuleType, tmp_path: Path) -> None:
    with served(Toy(), tiny, faults) as backend:
        points = verified(backend, tmp_path / "out", "text", "causality", "state", "batch")
    told = {name: (point.settings["verdict"], point.settings["why"]) for name, point in points.items()}
    assert told == dict.fromkeys(points, ("holds", ""))


@pytest.mark.parametrize(
    ("fault", "law"), [("batch", "batch"), ("slot", "slots"), ("chunk", "state"), ("future", "causality")]
)
def test_a_fault_is_found_through_the_server(
    fault: str, law: str, tiny: Path, faults: ModuleType, tmp_path: Path
) -> None:
    with served(Toy(fault), tiny, faults) as backend:
        points = verified(backend, tmp_path / "out", law)
    assert points[law].settings["verdict"] == "broken"
