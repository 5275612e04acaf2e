"""KDA as Kimi K3 and GLM-5.3-Flash use it: a gate with a lower bound, an output gate of full rank; every form of it, and files."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from kleval.models.cache import HybridCache
from kleval.models.checkpoint import load_decoder, read_config, save
from kleval.models.config import ModelConfig
from kleval.models.decoder import Decoder
from kleval.models.linear_attention import LinearAttention
from kleval.models.registry import config_of, resolve
from kleval.models.sizes import K3_TINY
from kleval.ops import fla_kernels
from kleval.ops.kda import chunk_kda, log_decay, recurrent_kda, step_kda
from kleval.ops.native import loading
from kleval.types import UsageError

Make = Callable[..., Decoder]
GATES = [(-5.0, True), (-5.0, False), (None, True), (-0.1, True)]


def gated(make: Make, bound: float | None, full: bool, seed: int = 3) -> Decoder:
    """The tiny decoder with other gates, float64."""
    config = make("kimi-linear", True).config
    decoder = Decoder(replace(config, kda_gate_lower_bound=bound, kda_full_rank_gate=full))
    decoder.init_weights(seed)
    for name, parameter in decoder.named_parameters():
        if name.endswith("dt_bias"):  # around 0, where the two gates differ most
            torch.nn.init.normal_(parameter.data, std=2.0)
    return decoder.double().eval().requires_grad_(False)


def tokens(*shape: int) -> Tensor:
    return torch.randint(0, 50, shape, generator=torch.Generator().manual_seed(0))


def test_the_gate_is_the_bound_times_a_sigmoid() -> None:
    x, a_log = torch.randn(3, 5, 2, 8, dtype=torch.float64) * 9, torch.randn(2, 1, dtype=torch.float64)
    g = log_decay(x, -a_log.exp(), -5.0)
    assert torch.equal(g, -5.0 * torch.sigmoid(a_log.exp() * x))
    assert -5 <= float(g.min()) < float(g.max()) <= 0
    torch.testing.assert_close(log_decay(x, -a_log.exp()), -a_log.exp() * torch.nn.functional.softplus(x))


def test_the_operator_is_exact_with_gates_at_their_bound() -> None:
    """Recurrent, chunked at any size, token by token."""
    q, k, v = (torch.nn.functional.normalize(torch.randn(2, 70, 2, 8, dtype=torch.float64), dim=-1) for _ in range(3))
    g = log_decay(torch.randn(2, 70, 2, 8, dtype=torch.float64) * 20, torch.full((2, 1), -1.0).double(), -5.0)
    beta, state = torch.rand(2, 70, 2, dtype=torch.float64), torch.randn(2, 2, 8, 8, dtype=torch.float64)
    exact, final = recurrent_kda(q, k, v, g, beta, state)
    for chunk in (1, 16, 64):
        ours, last = chunk_kda(q, k, v, g, beta, state, chunk, lower_bound=-5.0)
        torch.testing.assert_close(ours, exact, rtol=1e-11, atol=1e-12)
        torch.testing.assert_close(last, final, rtol=1e-11, atol=1e-12)
    carried = state.clone()
    steps = [step_kda(*(x[:, t : t + 1] for x in (q, k, v, g, beta)), carried)[0] for t in range(70)]
    torch.testing.assert_close(torch.cat(steps, 1), exact, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize(("bound", "full"), GATES)
def test_prompt_chunks_and_steps_are_the_whole(tiny_decoder: Make, bound: float | None, full: bool) -> None:
    decoder, ids = gated(tiny_decoder, bound, full), tokens(2, 90)
    whole, cache = decoder.hidden(ids), HybridCache(decoder.config, 2, dtype=torch.float64)
    parts = [decoder.hidden(part, cache) for part in ids.split([1, 60, 27, 1, 1], 1)]
    torch.testing.assert_close(torch.cat(parts, 1), whole, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize(("bound", "full"), GATES)
def test_the_layer_that_trains_is_the_one_that_infers(tiny_decoder: Make, bound: float | None, full: bool) -> None:
    decoder, ids = gated(tiny_decoder, bound, full), tokens(1, 40)
    inferred = decoder.hidden(ids)
    decoder.requires_grad_(True)
    trained = decoder.hidden(ids)
    torch.testing.assert_close(trained.detach(), inferred, rtol=1e-9, atol=1e-11)
    trained.sum().backward()  # type: ignore[no-untyped-call]
    mixer = decoder.model.layers[0].self_attn
    assert all(
        p.grad is not None and p.grad.abs().sum() > 0 for n, p in mixer.named_parameters() if "f_" in n or "g_" in n
    )


@pytest.mark.skipif(loading.native() is None, reason=f"no native library: {loading.why_not()}")
@pytest.mark.parametrize(("bound", "full"), GATES)
def test_the_decoder_in_cpp_is_the_decoder_in_float64(tiny_decoder: Make, bound: float | None, full: bool) -> None:
    exact, ids = gated(tiny_decoder, bound, full), tokens(2, 75)
    single = Decoder(exact.config).requires_grad_(False)
    single.load_state_dict({n: p.float() for n, p in exact.state_dict().items()})
    cache = HybridCache(exact.config, 2)
    ours = torch.cat([single.eval().hidden(part, cache) for part in ids.split([70, 1, 4], 1)], 1)
    whole = exact.hidden(ids)
    assert float((ours - whole).norm() / whole.norm()) < 5e-6


def test_a_layer_is_that_of_glm_5_3_flash(plain_module: Callable[[str], Any]) -> None:
    """transformers' own layer: a bound of -5, a gate of low rank."""
    module = plain_module("glm5_next")
    theirs_config = module.Glm5NextTextConfig(
        hidden_size=24, linear_num_heads=3, linear_head_dim=8, num_hidden_layers=4, rms_norm_eps=1e-2
    )
    theirs = module.Glm5NextTextLinearAttention(theirs_config, 0).eval()
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter.data, std=0.5)
    config = replace(
        K3_TINY, hidden_size=24, kda_num_heads=3, kda_head_dim=8, kda_full_rank_gate=False, rms_norm_eps=1e-2
    )
    ours = LinearAttention(config, per_head=False).eval()
    stored = {name.removeprefix("forget_gate."): tensor for name, tensor in theirs.state_dict().items()}
    convolutions = stored.pop("conv1d.weight").chunk(3)
    stored |= {f"{part}_conv1d.weight": taps for part, taps in zip("qkv", convolutions, strict=True)}
    stored["A_log"] = stored["A_log"].view(1, 1, 3, 1)
    ours.load_state_dict(stored)
    x = torch.randn(2, 37, 24)
    with torch.no_grad():
        expected = theirs(x)
        torch.testing.assert_close(ours.decay(x).flatten(2), theirs.forget_gate(x).flatten(2), rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(ours(x, None, None, None), expected, rtol=1e-4, atol=1e-5)


def published(decoder: Decoder, folder: Path, **linear: Any) -> Path:
    """A checkpoint as Kimi's, with the names of K3's gates; its decay rates one number per head."""
    plain = replace(decoder.config, embedding_multiplier=1.0)
    decoder.config = replace(plain, kda_gate_lower_bound=None, kda_full_rank_gate=False)
    save(decoder, folder)
    decoder.config = plain
    tensors = load_file(folder / "model.safetensors")
    save_file({n: t.flatten() if n.endswith("A_log") else t for n, t in tensors.items()}, folder / "model.safetensors")
    file = folder / "config.json"
    values = json.loads(file.read_text())
    values["linear_attn_config"] |= {"gate_lower_bound": plain.kda_gate_lower_bound, **linear}
    file.write_text(json.dumps(values))
    return folder


def test_checkpoints_that_ask_for_them_load(tiny_decoder: Make, tmp_path: Path) -> None:
    decoder = gated(tiny_decoder, -5.0, True)
    loaded = load_decoder(published(decoder, tmp_path, use_full_rank_gate=True, safe_gate=True))
    assert (loaded.config.kda_gate_lower_bound, loaded.config.kda_full_rank_gate) == (-5.0, True)
    torch.testing.assert_close(loaded.hidden(tokens(1, 20)), decoder.hidden(tokens(1, 20)))


def test_the_own_layout_keeps_them(tiny_decoder: Make, tmp_path: Path) -> None:
    decoder = gated(tiny_decoder, -0.5, True)
    save(decoder, tmp_path, layout="kleval")
    assert load_decoder(tmp_path).config == decoder.config
    with pytest.raises(UsageError, match="neither a gate with a lower bound nor one of full rank"):
        save(decoder, tmp_path / "other")


@pytest.mark.parametrize(
    ("linear", "said"),
    [
        ({"gate_lower_bound": 0}, "gate_lower_bound is 0: expected a number below 0"),
        ({"gate_lower_bound": "-5"}, "gate_lower_bound is '-5': expected a number below 0"),
        ({"safe_gate": False}, "safe_gate is False, but gate_lower_bound is -5.0"),
        ({"gate_lower_bound": None, "safe_gate": True}, "safe_gate is True, but gate_lower_bound is None"),
        ({"lower_bound": -4.0}, "fields contradict each other"),
        ({"use_full_rank_gate": 1.5}, "use_full_rank_gate is 1.5: expected true or false"),
    ],
)
def test_gates_that_make_no_sense_are_refused(
    tiny_decoder: Make, tmp_path: Path, linear: dict[str, Any], said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        read_config(published(gated(tiny_decoder, -5.0, False), tmp_path, **linear))


def test_a_small_k3_has_its_kda_and_k3_itself_is_refused_by_what_is_missing() -> None:
    config = config_of(resolve("kimi-k3@tiny"))
    assert isinstance(config, ModelConfig)
    assert (config.kda_gate_lower_bound, config.kda_full_rank_gate) == (-5.0, True)
    assert len(config.kda_layers) == 3 * len(config.full_attn_layers)
    with pytest.raises(UsageError) as error:
        resolve("kimi-k3")
    for field in (
        "q_lora_rank",
        "mla_use_output_gate",
        "routed_expert_hidden_size",
        "attn_res_block_size",
        "hidden_act",
    ):
        assert field in str(error.value)
    assert "lower_bound" not in str(error.value)
    assert "full_rank" not in str(error.value)


@pytest.mark.parametrize(("bound", "safe"), [(-5.0, True), (-6.0, False), (None, False)])
def test_only_gates_of_at_least_minus_5_take_the_fast_form_of_fla(
    monkeypatch: pytest.MonkeyPatch, bound: float | None, safe: bool
) -> None:
    pytest.importorskip("fla.ops.kda")
    asked: list[Any] = []
    monkeypatch.setattr(fla_kernels, "_in_pieces", lambda kernel, *rest: asked.append(getattr(kernel, "keywords", {})))
    fla_kernels.chunk_kda(*[torch.zeros(1)] * 5, None, bound)
    assert asked == [{"safe_gate": True} if safe else {}]
