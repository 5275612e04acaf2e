"""What the mixers take of a training step on one CPU thread: tokens per second of `kleval train nano` as it is, without the mixers'
rules (projections, gates, norms and their optimiser stay; KDA's, GDN's and attention's output is v), and without mixers, in
alternating rounds of one process.

    python benchmarks/training_speed.py [--models kimi-linear,gdn-h,mla] [--lengths 512,2k] [--steps 3] [--rounds 3]

Batches, loss, clipping and optimisers are the recipe's. Share: how much of a step is gone without them.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from collections.abc import Callable
from typing import Any

from common import length, print_environment, print_table, short, spread

GOAL = 0.25  # of a step, at most, for the rules


def trainer(model: str, tokens_long: int, without: str) -> Callable[[int], float]:
    """Runs so many steps and gives their tokens per second of CPU time."""
    from kleval.models import attention
    from kleval.models.linear_attention import LinearAttention
    from kleval.train import loop, nano, recipe

    made = recipe.load()
    job = nano.job(model, made)
    tokens_at = next(n for n in range(0, made.tokens, made.tokens // 100) if made.length_at(n) == tokens_long)
    batches = itertools.cycle([job.batch(step, tokens_at) for step in range(4)])
    if without == "mixers":
        for block in job.model.model.layers:
            block.self_attn = nothing()
    both, at = loop.optimisers(job), loop.Progress(job.name, job.budget)
    kept = LinearAttention.rule, attention.causal_attention

    def run(steps: int) -> float:
        if without == "rules":
            LinearAttention.rule, attention.causal_attention = linear_free, attention_free  # type: ignore[method-assign]
        try:
            started, tokens = time.process_time(), 0
            for batch in itertools.islice(batches, steps):
                loop._step(job, both, batch, at, "cpu")
                tokens += batch.ids.size
            return tokens / (time.process_time() - started)
        finally:
            LinearAttention.rule, attention.causal_attention = kept  # type: ignore[method-assign]

    return run


def linear_free(self: Any, q: Any, k: Any, v: Any, g: Any, beta: Any, state: Any) -> Any:
    """v, with everything that the rule reads still in the graph."""
    rest = g if g.dim() == 4 else g.unsqueeze(-1)
    return v + 0 * (q + k + rest + beta.unsqueeze(-1)), None


def attention_free(q: Any, k: Any, v: Any, scale: float) -> Any:
    return v + 0 * (q + k).sum(-1, keepdim=True)


def nothing() -> Any:
    from torch import nn

    class Nothing(nn.Module):
        def forward(self, x: Any, *_: Any) -> Any:
            return 0 * x

    return Nothing()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="kimi-linear,gdn-h,mla")
    parser.add_argument("--lengths", default="512,2k")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    import torch

    torch.set_num_threads(1)
    print_environment(torch=torch.__version__)
    body, goals = [], []
    for model, n in itertools.product(given.models.split(","), map(length, given.lengths.split(","))):
        runs = [trainer(model, n, without) for without in ("", "rules", "mixers")]
        for run in runs:
            run(1)
        rounds = [[run(given.steps) for run in runs] for _ in range(given.rounds)]
        whole, without_rules, without_mixers = ([one[i] for one in rounds] for i in range(3))
        shares = [
            [1 - own / other for own, other in zip(whole, others, strict=True)]
            for others in (without_rules, without_mixers)
        ]
        speeds = [spread(column, 1, 0) for column in (whole, without_rules, without_mixers)]
        body.append([model, short(n), *speeds, *(spread(share, 100, 0, " %") for share in shares)])
        goals.append((f"{model}, {short(n)}: share of the rules", statistics.median(shares[0])))
    header = ["model", "length", "tokens/s", "without rules", "without mixers", "share of rules", "share of mixers"]
    print(f"CPU time; least/median/largest of {given.rounds} rounds of {given.steps} steps")
    print_table(header, body)
    print()
    for what, share in goals:
        print(
            f"{what} {100 * share:.0f} % (goal at most {100 * GOAL:.0f} %: {'reached' if share <= GOAL else 'not reached'})"
        )


if __name__ == "__main__":
    main()
