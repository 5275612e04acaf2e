"""The table of hybrids in the docs is the one that its command makes."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from kleval.models.registry import costs_of

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "hybrid_costs.py"
SPEC = importlib.util.spec_from_file_location("hybrid_costs", SCRIPT)
assert SPEC is not None
assert SPEC.loader is not None
hybrid_costs = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(hybrid_costs)


def test_the_page_has_the_table_of_the_command() -> None:
    page = hybrid_costs.PAGE.read_text("utf-8")
    assert hybrid_costs.written(page) == page
    assert hybrid_costs.table().count("\n") == 2 + len(hybrid_costs.MODELS) * len(hybrid_costs.CTXS)


def test_the_ceiling_tends_to_the_share_of_attention_layers() -> None:
    moved = hybrid_costs.moved_state
    _, kimi = costs_of("kimi-linear@48b-a3b")
    ratios = [moved(kimi.full_attention(), n) / moved(kimi, n) for n in (4096, 1 << 20, 1 << 30)]
    assert ratios[0] < ratios[1] < ratios[2] < 27 / 7
    assert ratios[2] > 0.9999 * 27 / 7
