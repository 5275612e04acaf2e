"""Run with TRITON_INTERPRET=1 by `test_fused.py`: prints, as one JSON object, how far decode steps through our Triton kernels are
from one forward pass of the same decoder in float64; not a test module itself."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from kleval.models.cache import HybridCache, RecurrentState
from kleval.models.config import ModelConfig
from kleval.models.decoder import Decoder
from kleval.models.linear_attention import LinearAttention, linear_prefill
from kleval.models.sizes import preset
from kleval.models.stepper import Stepper
from kleval.ops import available


def tiny(architecture: str, moe: bool, shared: int = 1) -> ModelConfig:
    config = preset(architecture, "nano", vocab_size=50, eos_token_id=0)
    linear = config.layer_mixers[0]
    config = replace(
        config,
        hidden_size=16,
        layer_mixers=(linear, "mla", linear),
        kda_num_heads=2,
        kda_head_dim=8,
        num_attention_heads=2,
        qk_nope_head_dim=8,
        qk_rope_head_dim=4,
        v_head_dim=6,
        kv_lora_rank=10,
        intermediate_size=24,
    )
    if not moe:
        return config
    return replace(
        config,
        num_experts=5,
        num_experts_per_token=2,
        num_shared_experts=shared,
        moe_intermediate_size=8,
        routed_scaling_factor=2.446,
        first_k_dense_replace=1,
        tie_word_embeddings=False,
    )


def errors(config: ModelConfig, dtype: torch.dtype, rows: int = 3) -> dict[str, float]:
    decoder = Decoder(config)
    decoder.init_weights(1)
    for name, parameter in decoder.named_parameters():
        if name.endswith("e_score_correction_bias"):
            torch.nn.init.normal_(parameter.data, std=0.1)
    exact = decoder.double().eval().requires_grad_(False)
    ids = torch.randint(0, config.vocab_size, (rows, 8))
    expected, whole = exact.logits(exact.hidden(ids)), HybridCache(config, rows, dtype=torch.float64)
    exact.hidden(ids, whole)
    decoder = Decoder(config).requires_grad_(False)
    decoder.load_state_dict(exact.state_dict())
    decoder = decoder.to(dtype).eval()
    cache = HybridCache(config, rows, dtype=dtype)
    decoder.hidden(ids[:, :5], cache)
    stepper = Stepper(decoder, cache)
    assert stepper.fused
    worst = 0.0
    for t in range(5, 8):
        logits = stepper.step(ids[:, t]).double()
        error = float((logits - expected[:, t]).norm() / expected[:, t].norm())
        worst = max(worst, error) if error == error else float("nan")
    state = 0.0
    for ours, theirs in zip(cache.layers, whole.layers, strict=True):
        if isinstance(ours, RecurrentState) and isinstance(theirs, RecurrentState):
            for a, b in ((ours.recurrent, theirs.recurrent), (ours.conv, theirs.conv)):
                state = max(state, float((a.double() - b).norm() / b.norm()))
    assert cache.lengths_host == whole.lengths_host == cache.lengths.tolist()
    return {"logits": worst, "state": state}


def prefill_errors(config: ModelConfig) -> dict[str, float]:
    """Chunks of unequal lengths through `linear_prefill`, against the layers' own form; chunks shorter than the tail too."""
    decoder = Decoder(config)
    decoder.init_weights(2)
    decoder = decoder.double().eval().requires_grad_(False)
    ids = torch.randint(0, config.vocab_size, (3, 50))
    chunks = [(37, None), (2, None), (5, [5, 0, 3]), (1, None), (2, [0, 1, 2])]
    runs = []
    for forward in (PLAIN, through_prefill):
        LinearAttention.forward = forward  # type: ignore[method-assign]
        if forward is PLAIN:
            available.disable("step", "compared with")
        else:
            available.enable("step")
        cache, at, outputs = HybridCache(config, 3, dtype=torch.float64), 0, []
        for tokens, lengths in chunks:
            given = None if lengths is None else torch.tensor(lengths)
            hidden = decoder.hidden(ids[:, at : at + tokens], cache, given)
            kept = [hidden[row, : tokens if lengths is None else lengths[row]] for row in range(3)]
            outputs.append(torch.cat(kept))
            at += tokens
        states = [s for s in cache.layers if isinstance(s, RecurrentState)]
        runs.append([torch.cat(outputs), *(t for s in states for t in (s.recurrent, s.conv))])
    LinearAttention.forward = PLAIN  # type: ignore[method-assign]
    found = [float((a - b).norm() / b.norm()) for a, b in zip(runs[1], runs[0], strict=True)]
    return {"logits": found[0], "state": max(found[1:])}


PLAIN = LinearAttention.forward


def through_prefill(self: LinearAttention, x: Tensor, state: RecurrentState, valid: Any, lengths: Any) -> Tensor:
    result = linear_prefill(self, x, state, valid, lengths)
    assert result is not None
    return result


def main() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    found = {}
    for architecture in ("kimi-linear", "gdn-h", "mla", "kimi-linear-rope"):
        found[architecture] = errors(tiny(architecture, moe=False), torch.float64)
    for architecture in ("kimi-linear", "gdn-h"):
        found[f"{architecture} moe"] = errors(tiny(architecture, moe=True), torch.float64)
    bounded = replace(tiny("kimi-linear", moe=False), kda_gate_lower_bound=-5.0, kda_full_rank_gate=True)
    found["bounded, full-rank gates"] = errors(bounded, torch.float64)
    found["bounded, full-rank gates prompt"] = prefill_errors(bounded)
    found["no shared expert"] = errors(tiny("kimi-linear", True, shared=0), torch.float64, rows=1)
    found["two shared experts"] = errors(tiny("kimi-linear", True, shared=2), torch.float64, rows=1)
    found["many rows"] = errors(tiny("kimi-linear", True), torch.float64, rows=17)
    found["float32"] = errors(tiny("kimi-linear", True), torch.float32)
    for architecture in ("kimi-linear", "gdn-h"):
        found[f"{architecture} prompt"] = prefill_errors(tiny(architecture, moe=False))
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    main()
