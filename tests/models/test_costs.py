"""Closed forms against what they are about: parameters of real modules, bytes of a real cache, operations that torch counts."""

from __future__ import annotations

import math
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from kleval.models import attention, costs
from kleval.models.attention import LatentAttention
from kleval.models.cache import HybridCache
from kleval.models.config import ARCHITECTURES, ModelConfig
from kleval.models.decoder import Decoder
from kleval.models.layers import SparseMoE
from kleval.models.sizes import SIZES, preset
from kleval.types import UsageError

GIB = 1 << 30
M = 1 << 20
KIMI, MLA = preset("kimi-linear", "48b-a3b"), preset("mla", "48b-a3b")
ALL = [pytest.param(preset(a, s), id=f"{a}@{s}") for s in SIZES for a in ARCHITECTURES]
SMALL = [
    replace(preset(a, "0.1b"), vocab_size=50, hidden_size=24, kda_num_heads=2, kda_head_dim=8, moe_intermediate_size=12)
    for a in ARCHITECTURES
]
MIXED = replace(SMALL[0], layer_mixers=("gdn", "mla", "kda", "kda"), short_conv_kernel_size=3, num_shared_experts=2)


def component(name: str, config: ModelConfig) -> str:
    parts = name.split(".")
    if parts[0] == "lm_head":
        return "lm_head"
    if parts[1] == "embed_tokens":
        return "embedding"
    if parts[1] == "norm" or "layernorm" in parts[3]:
        return "norms"
    if parts[3] == "self_attn":
        return "mla" if config.layer_mixers[int(parts[2])] == "mla" else "linear_attention"
    if parts[3] == "mlp":
        return "dense_mlp"
    return {"gate": "router"}.get(parts[4], parts[4])


def by_component(config: ModelConfig, count: Callable[[str, Tensor], int]) -> dict[str, int]:
    """count(name, parameter) summed over the parameters of a real decoder."""
    with torch.device("meta"):
        decoder = Decoder(config)
    found: Counter[str] = Counter()
    for name, parameter in decoder.named_parameters():
        found[component(name, config)] += count(name, parameter)
    return dict(found)


def nonzero(counts: dict[str, int]) -> dict[str, int]:
    return {name: value for name, value in counts.items() if value}


def flops(run: Callable[[], object]) -> int:
    """Of the training forms, which use matrix products for nothing else."""
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


@pytest.mark.parametrize("config", [*ALL, pytest.param(MIXED, id="mixed")])
def test_parameters_are_those_of_the_modules(config: ModelConfig) -> None:
    assert nonzero(config.parameters_by_component()) == by_component(config, lambda _, p: p.numel())


@pytest.mark.parametrize("config", ALL)
def test_active_parameters_leave_out_unchosen_experts_and_the_lookup(config: ModelConfig) -> None:
    def active(name: str, parameter: Tensor) -> int:
        if ".experts." in name:
            return parameter[: config.num_experts_per_token].numel()
        return 0 if "embed_tokens" in name and not config.tie_word_embeddings else parameter.numel()

    assert nonzero(config.active_parameters_by_component()) == nonzero(by_component(config, active))
    assert config.active_parameters() == sum(config.active_parameters_by_component().values())


@pytest.mark.parametrize("config", [*SMALL, MIXED])
@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
def test_weight_bytes_keep_decay_and_router_bias_wide(config: ModelConfig, dtype: str) -> None:
    def nbytes(name: str, parameter: Tensor) -> int:
        wide = name.endswith(("A_log", "dt_bias", "e_score_correction_bias"))
        size = getattr(torch, dtype).itemsize
        return parameter.numel() * (max(size, 4) if wide else size)

    assert config.weight_bytes(dtype) == sum(by_component(config, nbytes).values())


@settings(max_examples=25, deadline=None)
@given(
    config=st.sampled_from([*SMALL, MIXED]),
    lengths=st.lists(st.integers(0, 700), min_size=1, max_size=3),
    dtype=st.sampled_from(["float32", "float64", "bfloat16", "float16"]),
)
def test_state_bytes_are_those_of_a_cache(config: ModelConfig, lengths: list[int], dtype: str) -> None:
    cache = HybridCache(config, len(lengths), dtype=getattr(torch, dtype))
    cache.fill(lengths)
    rows = [config.state_bytes(length, 1, dtype) for length in lengths]
    assert cache.used_bytes() == sum(row.total for row in rows)
    assert cache.used_by_component().latent == sum(row.latent for row in rows)
    assert config.state_bytes(lengths[0], 5, dtype).total == 5 * rows[0].total


@pytest.mark.parametrize("config", [*SMALL, MIXED])
def test_matrix_products_are_two_per_number_and_token(config: ModelConfig) -> None:
    tokens = 7

    def products(name: str, parameter: Tensor) -> int:
        if parameter.dim() < 2 or name.endswith("A_log") or "conv1d" in name:
            return 0
        if "embed_tokens" in name:
            return 2 * parameter.numel() if config.tie_word_embeddings else 0
        chosen = parameter[: config.num_experts_per_token] if ".experts." in name else parameter
        return 2 * tokens * chosen.numel()

    counted = config.prefill_flops_by_component(tokens) | {"delta_rule": 0, "attention": 0}
    counted["embedding"] = counted.pop("lm_head")
    assert nonzero(counted) == nonzero(by_component(config, products))


def test_torch_counts_as_many_operations_in_a_sparse_layer() -> None:
    config, x = SMALL[0], torch.randn(1, 9, 24)
    layer = SparseMoE(config)
    torch.nn.init.normal_(layer.gate.weight)
    ours = config.prefill_flops_by_component(9)
    expected = sum(ours[name] for name in ("router", "experts", "shared_experts")) / 7  # of the 8 layers one is dense
    assert flops(lambda: layer(x)) == expected


def test_torch_counts_as_many_operations_in_the_projections_of_mla(monkeypatch: pytest.MonkeyPatch) -> None:
    config, x, positions = SMALL[3], torch.randn(1, 9, 24), torch.arange(9)[None]
    monkeypatch.setattr(attention, "causal_attention", lambda q, k, v, scale: v)
    layer = LatentAttention(config)
    assert flops(lambda: layer(x, None, positions)) == config.prefill_flops_by_component(9)["mla"] / 8


def test_torch_counts_as_many_operations_in_causal_attention() -> None:
    config, start, ctx = SMALL[0], 5, 19
    heads, width, value = (
        config.num_attention_heads,
        config.qk_nope_head_dim + config.qk_rope_head_dim,
        config.v_head_dim,
    )
    q, k, v = torch.randn(heads, ctx, width), torch.randn(heads, ctx, width), torch.randn(heads, ctx, value)

    def token_by_token() -> None:
        for t in range(start, ctx):
            scores = torch.bmm(q[:, t : t + 1], k[:, : t + 1].transpose(1, 2))
            torch.bmm(scores, v[:, : t + 1])

    assert 2 * flops(token_by_token) == config.prefill_flops_by_component(ctx, start)["attention"]  # 2 MLA layers


def test_torch_counts_as_many_operations_in_absorbed_decoding() -> None:
    config, ctx, batch = SMALL[0], 33, 3
    heads, rank, rope = config.num_attention_heads, config.kv_lora_rank, config.qk_rope_head_dim
    q, rows = torch.randn(batch, heads, rank + rope), torch.randn(batch, ctx + 1, rank + rope)
    counted = flops(lambda: torch.bmm(torch.bmm(q, rows.transpose(1, 2)), rows[..., :rank]))
    assert 2 * counted == config.decode_flops_by_component(ctx, batch)["attention"]


@settings(max_examples=50, deadline=None)
@given(config=st.sampled_from([*SMALL, KIMI]), cuts=st.lists(st.integers(1, 5000), min_size=2, max_size=4, unique=True))
def test_operations_of_pieces_add_up_to_the_whole(config: ModelConfig, cuts: list[int]) -> None:
    ends = [0, *sorted(cuts)]
    pieces = [config.prefill_flops(end, start) for start, end in pairwise(ends)]
    row = 2 * config.vocab_size * config.hidden_size
    assert sum(pieces) == config.prefill_flops(ends[-1]) + (len(pieces) - 1) * row


def test_one_decoded_token_is_one_prefilled_token_but_for_the_mixers() -> None:
    mixers = {"attention": 0, "delta_rule": 0}
    prefill = KIMI.prefill_flops_by_component(1001, 1000) | mixers
    assert KIMI.decode_flops_by_component(1000) | mixers == prefill
    assert KIMI.decode_flops(1000, 6) == 6 * KIMI.decode_flops(1000)


def test_nothing_costs_nothing() -> None:
    assert KIMI.prefill_flops(0) == KIMI.prefill_flops(50, 50) == 0
    assert KIMI.decode_flops(100, 0) == KIMI.decode_bytes(100, 0) == KIMI.state_bytes(100, 0).total == 0


def test_the_published_model_has_the_published_figures() -> None:
    assert (round(KIMI.parameters() / 1e9, 4), round(KIMI.active_parameters() / 1e9, 2)) == (49.1227, 3.11)
    assert KIMI.parameters_by_component()["linear_attention"] / 20e6 == pytest.approx(39.51, abs=0.005)
    assert KIMI.parameters_by_component()["mla"] / 7e6 == pytest.approx(29.11, abs=0.005)
    assert KIMI.weight_bytes() / GIB == pytest.approx(91.5, abs=0.05)
    assert (KIMI.state_bytes(1).latent, MLA.state_bytes(1).latent) == (8064, 31104)
    assert KIMI.state_bytes(0).recurrent == 40 * M
    assert KIMI.state_bytes(0, dtype="float32").conv == pytest.approx(2.81 * M, rel=1e-3)


@pytest.mark.parametrize(
    ("ctx", "kimi", "mla"), [(128, 0.984, 3.797), (256, 1.969, 7.594), (512, 3.938, 15.19), (1024, 7.875, 30.38)]
)
def test_the_table_of_latent_memory(ctx: int, kimi: float, mla: float) -> None:
    assert KIMI.state_bytes(ctx << 10).latent / GIB == pytest.approx(kimi, abs=6e-4)
    assert MLA.state_bytes(ctx << 10).latent / GIB == pytest.approx(mla, abs=6e-3)


def test_the_conventions_of_the_paper() -> None:
    assert costs.paper_delta_rule_flops(1, 128) == 126_976
    assert costs.paper_attention_flops(496, 128) == costs.paper_delta_rule_flops(496, 128)
    ratios = [costs.paper_mixer_flops(MLA, ctx) / costs.paper_mixer_flops(KIMI, ctx) for ctx in (4096, 1 << 17, M)]
    assert [round(ratio, 2) for ratio in ratios] == [2.87, 3.82, 3.85]


def test_mla_attends_with_320_operations_per_head_and_squared_token() -> None:
    attention_flops = MLA.prefill_flops_by_component(M)["attention"]
    assert attention_flops / (27 * 32 * M**2) == pytest.approx(320, rel=1e-5)
    assert attention_flops / 1e15 == pytest.approx(304, abs=0.5)
    ratio = attention_flops / (27 * 32 * costs.paper_attention_flops(M, 128))
    assert ratio == pytest.approx(1.25, rel=1e-5)


def test_bytes_of_a_step_are_weights_and_state() -> None:
    moved = KIMI.decode_bytes_by_component(M)
    table = KIMI.vocab_size * KIMI.hidden_size * 2
    weights = KIMI.weight_bytes() - table + KIMI.hidden_size * 2 - 26 * (256 - 8) * 3 * 2304 * 1024 * 2
    assert moved["weights"] + moved["experts"] == weights
    assert moved["latent"] == KIMI.state_bytes(M + 1).latent
    assert (moved["recurrent"], moved["conv"]) == (2 * KIMI.state_bytes(0).recurrent, 2 * KIMI.state_bytes(0).conv)
    assert [round(c.decode_bytes(M) / 1e9, 1) for c in (KIMI, MLA)] == [14.8, 38.4]


def test_a_tied_table_is_read_whole_for_the_logits() -> None:
    config = preset("mla", "0.1b")
    untied = replace(config, tie_word_embeddings=False)
    row = config.hidden_size * 2
    assert untied.decode_bytes(9, 3) == config.decode_bytes(9, 3) + 3 * row


@pytest.mark.parametrize("tokens", [1, 5, 40])
def test_distinct_experts_are_the_mean_of_random_choices(tokens: int) -> None:
    config = preset("kimi-linear", "0.1b")
    generator = torch.Generator().manual_seed(tokens)
    rounds = 400
    chosen = (
        torch.rand(rounds, tokens, config.num_experts, generator=generator).topk(config.num_experts_per_token).indices
    )
    counted = sum(len(c.unique()) for c in chosen) / rounds
    assert costs.distinct_experts(config, tokens) == pytest.approx(counted, rel=0.02)
    assert math.isclose(costs.distinct_experts(config, 1), config.num_experts_per_token)


def test_bad_questions_are_refused() -> None:
    with pytest.raises(UsageError, match="unknown dtype 'int8'"):
        KIMI.state_bytes(1, 1, "int8")
    with pytest.raises(ValueError, match="not negative"):
        KIMI.state_bytes(-1)
    with pytest.raises(ValueError, match="start 3 is behind ctx 2"):
        KIMI.prefill_flops(2, 3)


def test_closed_forms_need_no_torch() -> None:
    code = (
        "import sys; from kleval.models.sizes import preset; c = preset('mla', '48b-a3b'); "
        "c.decode_bytes(1, 1), c.prefill_flops(1); print('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
