"""Random weights: where they lie, what they repeat, and that tokens spread over experts as the cost model assumes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from kleval.models import random
from kleval.models.cache import HybridCache
from kleval.models.config import ARCHITECTURES, ModelConfig
from kleval.models.costs import distinct_experts
from kleval.models.decoder import Decoder
from kleval.models.layers import SparseMoE
from kleval.models.random import FLOAT32, random_decoder
from kleval.models.sizes import preset
from kleval.ops.moe import route

VOCAB, TOKENS = 2048, 1024


@pytest.fixture(autouse=True)
def torch_forms(monkeypatch: pytest.MonkeyPatch) -> None:
    """What passes through a module is seen there; in C++ nothing passes through modules."""
    monkeypatch.setenv("KLEVAL_NATIVE", "off")


def published_pattern(architecture: str, **changes: object) -> ModelConfig:
    """The published model, 27 layers deep, a few channels wide."""
    config = preset(architecture, "48b-a3b", vocab_size=VOCAB)
    narrow = replace(config, hidden_size=128, kda_num_heads=4, kda_head_dim=32, num_attention_heads=4, kv_lora_rank=64)
    narrow = replace(narrow, qk_nope_head_dim=32, qk_rope_head_dim=16, v_head_dim=32, intermediate_size=256)
    sparse = replace(narrow, num_experts=32, num_experts_per_token=4, moe_intermediate_size=16)
    return replace(sparse, **changes)  # type: ignore[arg-type]


def choices(decoder: Decoder, ids: Tensor) -> dict[int, Tensor]:
    """Per sparse layer the experts chosen by every token, [N, k], in a run of the whole decoder."""
    found: dict[int, Tensor] = {}

    def watch(layer: int) -> Callable[[SparseMoE, tuple[Tensor]], None]:
        def look(moe: SparseMoE, inputs: tuple[Tensor]) -> None:
            gate = moe.gate
            flat = inputs[0].flatten(0, -2)
            found[layer] = route(flat, gate.weight, gate.e_score_correction_bias, moe.top_k, moe.scaling)[1]

        return look

    for layer, block in enumerate(decoder.model.layers):
        if block.sparse:
            block.block_sparse_moe.register_forward_pre_hook(watch(layer))
    decoder.hidden(ids, HybridCache(decoder.config, len(ids), dtype=decoder.model.embed_tokens.weight.dtype))
    return found


def unevenness(chosen: Tensor, experts: int) -> float:
    """Coefficient of variation of the load per expert, beyond that of as many uniform choices."""
    load = torch.bincount(chosen.flatten(), minlength=experts).double()
    sampling = experts / chosen.numel()
    return max(float((load.std(correction=0) / load.mean()) ** 2) - sampling, 0.0) ** 0.5


def random_ids(rows: int, tokens: int) -> Tensor:
    return torch.randint(0, VOCAB, (rows, tokens), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("architecture", ["kimi-linear", "gdn-h", "mla"])
def test_tokens_spread_evenly_over_experts_at_every_depth(architecture: str) -> None:
    decoder = random_decoder(published_pattern(architecture))
    chosen = choices(decoder, random_ids(2, TOKENS // 2))
    found = [unevenness(layer, 32) for layer in chosen.values()]
    assert len(found) == 26
    assert sum(found) / 26 < 0.1
    assert max(found) < 0.2


def test_plain_random_weights_are_not_even() -> None:
    """What the balance is for: the bound above means something."""
    decoder = random_decoder(published_pattern("kimi-linear"))
    decoder.init_weights(0)
    chosen = choices(decoder, random_ids(2, TOKENS // 2))
    assert max(unevenness(layer, 32) for layer in chosen.values()) > 0.4


def test_a_batch_meets_as_many_experts_as_the_closed_form_expects() -> None:
    config = published_pattern("kimi-linear")
    chosen = choices(random_decoder(config, seed=3), random_ids(1, TOKENS))
    for batch in (4, 12):
        counts = [len(part.unique()) for layer in chosen.values() for part in layer.split(batch)]
        assert sum(counts) / len(counts) == pytest.approx(distinct_experts(config, batch), rel=0.05)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_bfloat16_stays_finite_through_27_layers(architecture: str) -> None:
    decoder = random_decoder(published_pattern(architecture), dtype=torch.bfloat16)
    hidden = decoder.hidden(random_ids(1, 48), HybridCache(decoder.config, 1, dtype=torch.bfloat16))
    logits = decoder.logits(hidden)
    assert hidden.dtype == torch.bfloat16
    assert bool(logits.isfinite().all())
    assert 0.5 < float(logits.std()) < 2


def test_the_residual_stream_stays_mostly_the_tokens_own() -> None:
    decoder = random_decoder(published_pattern("kimi-linear"))
    sizes: dict[str, list[float]] = defaultdict(list)

    def look(_: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        sizes["rms"].append(float(output.square().mean().sqrt()))

    for block in decoder.model.layers:
        block.register_forward_hook(look)
    decoder.hidden(random_ids(1, 200), HybridCache(decoder.config, 1))
    assert len(sizes["rms"]) == 27
    assert 0.9 < min(sizes["rms"]) <= max(sizes["rms"]) < 2


def test_same_seed_same_weights() -> None:
    config = published_pattern("kimi-linear")
    first, again, other = (list(random_decoder(config, seed=s).parameters()) for s in (5, 5, 6))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    drawn = [a for a in first if a.std(correction=0) > 0]
    assert len(drawn) > 300
    assert not any(torch.equal(a, b) for a, b in zip(first, other, strict=True) if a.std(correction=0) > 0)


def test_architectures_share_what_they_have_in_common() -> None:
    kimi, mla = (dict(random_decoder(published_pattern(a)).named_parameters()) for a in ("kimi-linear", "mla"))
    common = [n for n in kimi if n in mla and kimi[n].shape == mla[n].shape]
    assert (sum(".experts." in n for n in common), sum("o_proj" in n for n in common)) == (52, 27)
    assert all(torch.equal(kimi[n], mla[n]) for n in common)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_decay_rates_and_router_bias_stay_wide(dtype: torch.dtype) -> None:
    decoder = random_decoder(published_pattern("gdn-h"), dtype=dtype)
    for name, parameter in decoder.named_parameters():
        wide = name.endswith(FLOAT32) and dtype == torch.bfloat16
        assert parameter.dtype == (torch.float32 if wide else dtype), name
        assert not parameter.requires_grad
    nbytes = sum(p.numel() * p.element_size() for p in decoder.parameters())
    assert nbytes == decoder.config.weight_bytes(str(dtype).removeprefix("torch."))
    assert not decoder.training


def test_decay_rates_are_those_of_fla() -> None:
    layer = random_decoder(published_pattern("kimi-linear")).model.layers[0].self_attn
    assert 1 <= float(layer.A_log.exp().min()) <= float(layer.A_log.exp().max()) <= 16
    dt = nn.functional.softplus(layer.dt_bias)
    assert float(dt.min()) * 1.001 >= 1e-3
    assert float(dt.max()) <= 1e-1 * 1.001


def test_router_rows_are_orthonormal_where_they_can_be() -> None:
    for experts, orthogonal in ((32, True), (200, False)):
        config = published_pattern("kimi-linear", num_experts=experts)
        rows = random_decoder(config).model.layers[1].block_sparse_moe.gate.weight
        products = rows @ rows.T - torch.eye(experts)
        assert float(products.diagonal().abs().max()) < 1e-5
        assert (float(products.abs().max()) < 1e-5) == orthogonal


def test_nothing_is_drawn_anywhere_but_on_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the meta device there is no memory: a copy made elsewhere first would be seen as real bytes."""
    with torch.device("meta"):
        torch.empty(0)  # torch notes once which functions make tensors: before one of them is replaced
    monkeypatch.setattr(random, "_generator", lambda *_: None)
    made: list[int] = []
    empty = torch.empty

    def watched(*shape: object, **how: object) -> Tensor:
        tensor: Tensor = empty(*shape, **how)  # type: ignore[call-overload]
        made.append(0 if tensor.is_meta else tensor.numel())
        return tensor

    monkeypatch.setattr(torch, "empty", watched)
    decoder = random_decoder(preset("kimi-linear", "48b-a3b"), device="meta", dtype=torch.bfloat16)
    assert len(made) > 500
    assert sum(made) == 0
    assert all(p.is_meta for p in decoder.parameters())
