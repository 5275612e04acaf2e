"""What vLLM would allocate for a sequence, by its own planning functions, against the closed form."""

from __future__ import annotations

from kleval.models.costs import Split
from kleval.models.registry import costs_of
from kleval.profiler import vllm_plan


def test_attention_alone_is_the_closed_form_in_whole_blocks() -> None:
    for name in ("deepseek-v3", "llama-3.1-70b"):
        config = costs_of(name)[1]
        planned = vllm_plan.allocation(config, 4096 + 1, split=Split(8))
        assert planned is not None
        assert planned.nbytes == config.state_bytes(4096 + planned.block_tokens, split=Split(8)).total


def test_a_hybrid_keeps_two_states_in_pages_of_attention() -> None:
    config = costs_of("kimi-k3")[1]
    planned = vllm_plan.allocation(config, 1 << 20)
    assert planned is not None
    page = planned.block_tokens * 576 * 2
    blocks = -(-(1 << 20) // planned.block_tokens)
    assert page >= config.state_bytes(0).total / 69
    assert planned.nbytes == 24 * page * (blocks + 3 * vllm_plan.STATES_KEPT)  # 69 KDA layers in 3 groups of 24
