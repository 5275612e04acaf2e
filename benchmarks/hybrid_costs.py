"""Table of what hybrids cost, for docs/hybrids.md: python benchmarks/hybrid_costs.py [--write].

Every published shape beside Kimi Linear at 4k, 128k and 1M tokens, in closed form from its config.json: nothing is measured. Without
--write the table is printed; with it, it replaces the one between the marks in docs/hybrids.md.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from kleval.models.costs import Costs
from kleval.models.published import PUBLISHED
from kleval.models.registry import costs_of
from kleval.text import format_length, rate, size, times

PAGE = Path(__file__).resolve().parents[1] / "docs" / "hybrids.md"
BEGIN, END = "<!-- hybrids:begin -->", "<!-- hybrids:end -->"
MODELS = ("kimi-linear@48b-a3b", *PUBLISHED)
CTXS = (4096, 131072, 1048576)
HEADER = ("ctx", "model", "state", "prefill", "decode, bytes per token", "ceiling", "at batch 1")


def moved_state(config: Costs, ctx: int) -> int:
    """Bytes of state that one decode step of one sequence reads and writes."""
    moved = config.decode_bytes_by_component(ctx)
    return sum(nbytes for name, nbytes in moved.items() if name not in ("weights", "experts"))


def row(name: str, config: Costs, ctx: int) -> tuple[str, ...]:
    full = config.full_attention()
    return (
        format_length(ctx),
        f"`{name}`",
        size(config.state_bytes(ctx).total),
        rate(config.prefill_flops(ctx), "FLOP"),
        size(config.decode_bytes(ctx)),
        times(moved_state(full, ctx) / moved_state(config, ctx)),
        times(full.decode_bytes(ctx) / config.decode_bytes(ctx)),
    )


def table() -> str:
    """Markdown."""
    configs = dict(costs_of(name) for name in MODELS)
    rows = [row(name, config, ctx) for ctx in CTXS for name, config in configs.items()]
    lines = [HEADER, ("--:", "---", *["--:"] * (len(HEADER) - 2)), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def written(page: str) -> str:
    """The page with this table between its marks."""
    before, _, rest = page.partition(BEGIN)
    _, mark, after = rest.partition(END)
    if not mark:
        raise SystemExit(f"{PAGE} has no {BEGIN} … {END}")
    return f"{before}{BEGIN}\n{table()}{END}{after}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--write", action="store_true", help="into docs/hybrids.md")
    if parser.parse_args().write:
        PAGE.write_text(written(PAGE.read_text("utf-8")), "utf-8")
    else:
        print(table(), end="")


if __name__ == "__main__":
    main()
