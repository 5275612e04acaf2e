"""The native decoder against transformers' own Kimi Linear on the same weights, float32, both ways.

The model is small and random, with everything that is initialised to 0 or 1 moved away from it: gates, convolutions, norms and router
biases all matter. rms_norm_eps is far from 1e-6, so that an epsilon in the wrong place shows.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from kleval.models.cache import HybridCache
from kleval.models.checkpoint import load_decoder, save
from kleval.models.decoder import Decoder
from kleval.models.registry import load, resolve
from kleval.types import UsageError

TOLERANCE = 1e-4
VOCABULARY = 96
PROMPT, DECODED = 130, 9

Make = Callable[..., Any]


@pytest.fixture(scope="module")
def make(kimi_linear: Any) -> Make:
    """make(**changes) -> a random model of transformers, CPU, float32."""

    def build(**changes: Any) -> Any:
        fields: dict[str, Any] = {
            "vocab_size": VOCABULARY,
            "hidden_size": 48,
            "intermediate_size": 80,
            "moe_intermediate_size": 24,
            "num_hidden_layers": 4,
            "num_attention_heads": 3,
            "num_key_value_heads": 3,
            "num_shared_experts": 1,
            "num_experts": 8,
            "num_experts_per_token": 2,
            "kv_lora_rank": 20,
            "qk_rope_head_dim": 8,
            "qk_nope_head_dim": 12,
            "v_head_dim": 10,
            "linear_head_dim": 16,
            "linear_num_heads": 2,
            "layer_types": ["linear_attention", "linear_attention", "linear_attention", "full_attention"],
            "mlp_layer_types": ["dense", "sparse", "sparse", "sparse"],
            "rms_norm_eps": 1e-2,
            "bos_token_id": None,
            "eos_token_id": 1,
            "pad_token_id": None,
        }
        model = kimi_linear.KimiLinearForCausalLM(kimi_linear.KimiLinearConfig(**(fields | changes))).eval()
        return randomise(model.requires_grad_(False))

    return build


def randomise(model: Any) -> Any:
    generator = torch.Generator().manual_seed(5)

    def normal(tensor: Tensor) -> Tensor:
        return torch.randn(tensor.shape, generator=generator)

    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        if "norm" in name:
            tensor.copy_(1 + 0.3 * normal(tensor))
        elif "correction_bias" in name:
            tensor.copy_(0.3 * normal(tensor))
        elif name.endswith("A_log"):
            tensor.copy_(torch.rand(tensor.shape, generator=generator) * 2.5)
        elif name.endswith("dt_bias"):
            tensor.copy_(-3 + 1.5 * normal(tensor))
        else:
            tensor.copy_(0.7 * normal(tensor) * tensor.shape[-1] ** -0.5)
    return model


@pytest.fixture(scope="module")
def theirs(make: Make) -> Any:
    return make()


@pytest.fixture(scope="module")
def folder(theirs: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("transformers")
    theirs.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def ours(folder: Path) -> Decoder:
    return load_decoder(folder)


@pytest.fixture(scope="module")
def ids() -> Tensor:
    return torch.randint(VOCABULARY, (1, PROMPT + DECODED), generator=torch.Generator().manual_seed(2))


@pytest.fixture(scope="module")
def expected(theirs: Any, ids: Tensor) -> Tensor:
    """Their logits for the whole sequence at once."""
    logits: Tensor = theirs(ids, use_cache=False).logits
    assert logits.abs().max() > 1  # else an absolute tolerance would say little
    return logits


def close(ours: Tensor, theirs: Tensor, tolerance: float = TOLERANCE) -> None:
    torch.testing.assert_close(ours, theirs, atol=tolerance, rtol=0)


def logits(decoder: Decoder, ids: Tensor, cache: HybridCache | None = None, lengths: Tensor | None = None) -> Tensor:
    with torch.no_grad():
        return decoder.logits(decoder.hidden(ids, cache, lengths))


def in_chunks(decoder: Decoder, ids: Tensor, sizes: Sequence[int]) -> Tensor:
    cache = HybridCache(decoder.config, len(ids))
    return torch.cat([logits(decoder, part, cache) for part in ids.split(list(sizes), 1)], 1)


def chunk_sizes(chunk: int) -> list[int]:
    """PROMPT in chunks, then DECODED single tokens."""
    whole, rest = divmod(PROMPT, chunk)
    return [chunk] * whole + [rest] * (rest > 0) + [1] * DECODED


def test_without_a_cache_logits_are_theirs(ours: Decoder, ids: Tensor, expected: Tensor) -> None:
    close(logits(ours, ids), expected)


@pytest.mark.parametrize("chunk", [PROMPT, 64, 37, 5, 1])
def test_prefill_in_chunks_and_decoding_after_it_are_theirs(
    chunk: int, ours: Decoder, ids: Tensor, expected: Tensor
) -> None:
    close(in_chunks(ours, ids, chunk_sizes(chunk)), expected)


def test_their_own_decoding_is_ours(theirs: Any, ours: Decoder, ids: Tensor) -> None:
    """They decode by another kernel than they prefill with."""
    name = next(n for n in ("cache", "past_key_values") if n in inspect.signature(theirs.forward).parameters)
    cache, steps = None, []
    for part in ids[:, :40].split([31] + [1] * 9, 1):
        out = theirs(part, **{name: cache}, use_cache=True)
        cache = out[name]
        steps.append(out.logits)
    close(in_chunks(ours, ids[:, :40], [31] + [1] * 9), torch.cat(steps, 1))


def test_rows_of_unequal_length_are_theirs(theirs: Any, ours: Decoder, ids: Tensor) -> None:
    lengths = [3, 97, 64]
    rows = [ids[0, i : i + n] for i, n in enumerate(lengths)]
    right = torch.stack([torch.nn.functional.pad(row, (0, 97 - len(row))) for row in rows])
    left = torch.stack([torch.nn.functional.pad(row, (97 - len(row), 0)) for row in rows])
    mask = torch.stack([(torch.arange(97) >= 97 - n).long() for n in lengths])
    padded = theirs(left, attention_mask=mask, use_cache=False).logits
    cache = HybridCache(ours.config, 3)
    batch = logits(ours, right, cache, torch.tensor(lengths))
    step = torch.tensor([[7], [8], [9]])
    after = logits(ours, step, cache)
    for i, (row, n) in enumerate(zip(rows, lengths, strict=True)):
        alone = theirs(torch.cat([row, step[i]])[None], use_cache=False).logits[0]
        close(batch[i, :n], alone[:n])
        close(after[i, 0], alone[n])
        close(batch[i, :n], padded[i, 97 - n :])


def test_our_weights_saved_are_theirs_again(
    ours: Decoder, ids: Tensor, expected: Tensor, tmp_path: Path, kimi_linear: Any
) -> None:
    """In shards, with nothing missing, unexpected or of another shape, and the same to the bit."""
    save(ours, tmp_path, shard_bytes=100_000)
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 2
    model, told = kimi_linear.KimiLinearForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(told.values()), told
    assert model.config.layer_types == ["linear_attention"] * 3 + ["full_attention"]
    assert torch.equal(model(ids, use_cache=False).logits, expected)


@pytest.mark.parametrize("tied", [True, False])
def test_a_model_of_ours_saved_gives_our_logits_in_transformers(
    tied: bool, tmp_path: Path, kimi_linear: Any, tiny_decoder: Callable[..., Decoder]
) -> None:
    """tied: no experts, one table for embeddings and head, and a factor on the embeddings."""
    decoder = tiny_decoder("kimi-linear", moe=not tied).float()
    assert decoder.config.tie_word_embeddings is tied
    assert decoder.config.embedding_multiplier != 1
    save(decoder, tmp_path)
    model, told = kimi_linear.KimiLinearForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(told.values()), told
    ids = torch.randint(decoder.config.vocab_size, (2, 70), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        close(logits(decoder, ids), model(ids, use_cache=False).logits)


def test_the_shipped_weights_give_the_same_answers_in_transformers(tmp_path: Path, kimi_linear: Any) -> None:
    decoder, tokenizer = load(resolve("kimi-linear"))
    save(decoder, tmp_path, tokenizer)
    model = kimi_linear.KimiLinearForCausalLM.from_pretrained(tmp_path)
    ids = torch.tensor([tokenizer.encode("The special magic number is 4713. What is the special magic number?")])
    with torch.no_grad():
        close(logits(decoder, ids), model(ids, use_cache=False).logits, 5e-4)  # logits up to 20


def test_names_in_memory_are_read(theirs: Any, folder: Path, ours: Decoder, tmp_path: Path) -> None:
    """Fused convolutions, forget_gate.*, stacked experts: what torch's own state_dict of their model holds."""
    from safetensors.torch import save_file

    save_file({name: t.clone() for name, t in theirs.state_dict().items()}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    read = dict(load_decoder(tmp_path).named_parameters())
    assert all(torch.equal(read[name], p) for name, p in ours.named_parameters())


def test_norms_of_queries_and_keys_add_1e_6_to_the_sum_of_squares(make: Make, tmp_path: Path, ids: Tensor) -> None:
    """Queries and keys so short that the epsilon decides their length: rms_norm_eps in its place would change everything."""
    model = make()
    expected = model(ids, use_cache=False).logits
    for name, parameter in model.named_parameters():
        if name.endswith("conv1d.weight"):
            parameter[: 2 * len(parameter) // 3] *= 1e-3
    short = model(ids, use_cache=False).logits
    assert (short - expected).abs().max() > 100 * TOLERANCE
    model.save_pretrained(tmp_path)
    close(logits(load_decoder(tmp_path), ids), short)


def test_the_norm_of_the_latent_adds_1e_6_to_the_mean_square(make: Make, tmp_path: Path, ids: Tensor) -> None:
    model = make()
    model.model.layers[3].self_attn.kv_a_proj_with_mqa.weight[:20] *= 1e-3
    model.save_pretrained(tmp_path)
    decoder = load_decoder(tmp_path)
    expected = model(ids, use_cache=False).logits
    close(logits(decoder, ids), expected)
    decoder.model.layers[3].self_attn.kv_a_layernorm.eps = decoder.config.rms_norm_eps
    assert (logits(decoder, ids) - expected).abs().max() > 10 * TOLERANCE


def test_router_biases_choose_experts_and_never_weigh_them(ours: Decoder, folder: Path, ids: Tensor) -> None:
    """The same bias on every expert changes no choice; other biases do."""
    expected = logits(ours, ids)
    biased = load_decoder(folder)
    biases = [p for name, p in biased.named_parameters() if name.endswith("e_score_correction_bias")]
    assert len(biases) == 3
    for bias in biases:
        bias += 0.5
    close(logits(biased, ids), expected, 1e-6)
    for bias in biases:
        bias.zero_()
    assert (logits(biased, ids) - expected).abs().max() > 100 * TOLERANCE


def test_the_pattern_that_transformers_makes_up_is_read_where_written_and_never_made_up_here(
    make: Make, tmp_path: Path, ids: Tensor
) -> None:
    """A bare config puts full attention at 0-based layer 4, where the published pattern has 3."""
    model = make(layer_types=None, mlp_layer_types=None, num_hidden_layers=5)
    model.save_pretrained(tmp_path)
    decoder = load_decoder(tmp_path)
    assert decoder.config.layer_mixers == ("kda", "kda", "kda", "kda", "mla")
    close(logits(decoder, ids), model(ids, use_cache=False).logits)
    values = json.loads((tmp_path / "config.json").read_text())
    del values["layer_types"]
    (tmp_path / "config.json").write_text(json.dumps(values))
    with pytest.raises(UsageError, match=r"neither linear_attn_config .* nor layer_types"):
        load_decoder(tmp_path)


def test_a_checkpoint_cast_by_transformers_to_bfloat16_keeps_its_rates_in_float32_here(
    make: Make, tmp_path: Path, ids: Tensor
) -> None:
    """transformers writes A_log, dt_bias and the router's bias in bfloat16 too; read here, they are float32 and stay it."""
    model = make().bfloat16()
    model.save_pretrained(tmp_path)
    decoder = load_decoder(tmp_path)
    dtypes = {name.rsplit(".", 1)[-1]: p.dtype for name, p in decoder.named_parameters()}
    assert {name for name, dtype in dtypes.items() if dtype == torch.float32} == {
        "A_log",
        "dt_bias",
        "e_score_correction_bias",
    }
    wide = load_decoder(tmp_path, dtype=torch.float32)
    close(logits(wide, ids), model.float()(ids, use_cache=False).logits)
