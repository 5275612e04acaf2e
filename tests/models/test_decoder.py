"""The decoder: parameters as published and as counted, gradients, positions, precision."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from kleval.models.config import ARCHITECTURES
from kleval.models.decoder import Decoder
from kleval.models.sizes import preset

Make = Callable[..., Decoder]


def tokens(*shape: int) -> torch.Tensor:
    return torch.randint(0, 50, shape, generator=torch.Generator().manual_seed(0))


def test_a_model_is_opened_without_the_compiler_of_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch._dynamo", None)  # makes an import fail; it takes seconds where it succeeds
    with torch.device("meta"):
        Decoder(preset("kimi-linear", "nano"))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_parameters_closed_form_is_the_count(architecture: str, tiny_decoder: Make) -> None:
    for decoder in (
        Decoder(preset(architecture, "nano")),
        tiny_decoder(architecture),
        tiny_decoder(architecture, True),
    ):
        assert decoder.config.parameters() == sum(p.numel() for p in decoder.parameters())


def test_48b_a3b_has_the_published_size() -> None:
    config = preset("kimi-linear", "48b-a3b")
    assert round(config.parameters() / 1e9, 2) == 49.12
    assert round(config.active_parameters() / 1e9, 2) == 3.11
    assert [i + 1 for i, mixer in enumerate(config.layer_mixers) if mixer == "mla"] == [4, 8, 12, 16, 20, 24, 27]


def test_48b_a3b_counts_as_built() -> None:
    with torch.device("meta"):
        decoder = Decoder(preset("kimi-linear", "48b-a3b"))
    assert sum(p.numel() for p in decoder.parameters()) == decoder.config.parameters()


def test_names_are_the_published_ones() -> None:
    with torch.device("meta"):
        shapes = {n: tuple(p.shape) for n, p in Decoder(preset("kimi-linear", "48b-a3b")).named_parameters()}
    kda, mla = "model.layers.1.self_attn.", "model.layers.3.self_attn."
    expected = {
        "model.embed_tokens.weight": (163840, 2304),
        kda + "q_proj.weight": (4096, 2304),
        kda + "k_conv1d.weight": (4096, 1, 4),
        kda + "f_a_proj.weight": (128, 2304),
        kda + "f_b_proj.weight": (4096, 128),
        kda + "b_proj.weight": (32, 2304),
        kda + "g_b_proj.weight": (4096, 128),
        kda + "A_log": (1, 1, 32, 1),
        kda + "dt_bias": (4096,),
        kda + "o_norm.weight": (128,),
        mla + "q_proj.weight": (6144, 2304),
        mla + "kv_a_proj_with_mqa.weight": (576, 2304),
        mla + "kv_a_layernorm.weight": (512,),
        mla + "kv_b_proj.weight": (8192, 512),
        mla + "o_proj.weight": (2304, 4096),
        "model.layers.0.mlp.gate_proj.weight": (9216, 2304),
        "model.layers.1.block_sparse_moe.gate.e_score_correction_bias": (256,),
        "model.layers.1.block_sparse_moe.shared_experts.down_proj.weight": (2304, 1024),
        "model.layers.26.post_attention_layernorm.weight": (2304,),
        "model.norm.weight": (2304,),
        "lm_head.weight": (163840, 2304),
    }
    assert {name: shapes.get(name) for name in expected} == expected


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_parameter_gets_a_finite_gradient(architecture: str, tiny_decoder: Make) -> None:
    decoder = tiny_decoder(architecture, moe=True).requires_grad_(True)
    ids = tokens(2, 30)
    F.cross_entropy(decoder.logits(decoder.hidden(ids)).flatten(0, 1), ids.flatten()).backward()
    for name, parameter in decoder.named_parameters():
        if not name.endswith("e_score_correction_bias"):
            assert parameter.grad is not None, name
            assert bool(parameter.grad.isfinite().all()), name
            assert bool((parameter.grad != 0).any()), name


def test_a_token_changes_nothing_before_it(tiny_decoder: Make) -> None:
    for architecture in ARCHITECTURES:
        decoder, ids = tiny_decoder(architecture), tokens(1, 50)
        changed = ids.clone()
        changed[0, 25] = (ids[0, 25] + 1) % 50
        difference = (decoder.hidden(ids) - decoder.hidden(changed)).abs().amax(-1)[0]
        assert float(difference[:25].max()) == 0
        assert float(difference[25:].min()) > 0


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_rope_is_where_the_architecture_says(architecture: str, tiny_decoder: Make) -> None:
    """theta matters for the RoPE variants and for no other."""
    decoder, ids = tiny_decoder(architecture), tokens(1, 20)
    other = Decoder(replace(decoder.config, rope_theta=100.0)).double().requires_grad_(False)
    other.load_state_dict(decoder.state_dict())
    same = torch.equal(decoder.hidden(ids), other.hidden(ids))
    assert same == (architecture in ("kimi-linear", "gdn-h"))


def test_weights_depend_on_the_seed_alone() -> None:
    def weights(seed: int) -> list[torch.Tensor]:
        torch.manual_seed(torch.randint(0, 100, ()).item())
        decoder = Decoder(preset("kimi-linear", "nano", vocab_size=64))
        decoder.init_weights(seed)
        return [p.detach() for p in decoder.parameters()]

    assert all(torch.equal(a, b) for a, b in zip(weights(3), weights(3), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(weights(3), weights(4), strict=True))


def test_bfloat16_autocast_trains_with_float32_gates(tiny_decoder: Make) -> None:
    decoder = Decoder(tiny_decoder("kimi-linear").config)
    decoder.init_weights(0)
    ids = tokens(2, 30)
    with torch.autocast("cpu", torch.bfloat16):
        layer = decoder.model.layers[0].self_attn
        assert layer.decay(torch.randn(1, 3, 16)).dtype == torch.float32
        hidden = decoder.hidden(ids)
        loss = F.cross_entropy(decoder.logits(hidden).flatten(0, 1), ids.flatten())
    loss.backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in decoder.parameters())
    exact = decoder.hidden(ids)
    assert float((hidden - exact).detach().abs().mean()) < 0.1 * float(exact.detach().abs().mean())


def test_embedding_multiplier_scales_the_input(tiny_decoder: Make) -> None:
    config = replace(tiny_decoder("mla").config, embedding_multiplier=1.0)
    plain, scaled = Decoder(config).double(), Decoder(replace(config, embedding_multiplier=3.0)).double()
    scaled.load_state_dict(plain.state_dict())
    with torch.no_grad():
        plain.model.embed_tokens.weight *= 3
    torch.testing.assert_close(plain.hidden(tokens(1, 9)), scaled.hidden(tokens(1, 9)))
