"""Tensors of every layout find their place, and what does not fit is one line that names it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from kleval.models.checkpoint import load_decoder, reader, save
from kleval.models.decoder import Decoder
from kleval.types import UsageError

Tensors = dict[str, Tensor]
EXPERT = "model.layers.1.block_sparse_moe.experts.3.w3.weight"


@pytest.fixture(scope="module")
def decoder(tiny_decoder: Callable[..., Decoder]) -> Decoder:
    """No factor on its embeddings, which transformers has no word for."""
    decoder = tiny_decoder("kimi-linear", moe=True).float()
    decoder.config = replace(decoder.config, embedding_multiplier=1.0)
    return decoder


@pytest.fixture
def folder(decoder: Decoder, tmp_path: Path) -> Path:
    """The published layout, in one file."""
    save(decoder, tmp_path)
    return tmp_path


def change(folder: Path, edit: Callable[[Tensors], object]) -> Path:
    """The same folder with its tensors edited in place."""
    tensors = load_file(folder / "model.safetensors")
    edit(tensors)
    save_file(tensors, folder / "model.safetensors")
    return folder


def same(a: Decoder, b: Decoder) -> bool:
    others = dict(b.named_parameters())
    return all(torch.equal(p, others[name]) for name, p in a.named_parameters())


def refused(folder: Path) -> str:
    with pytest.raises(UsageError) as error:
        load_decoder(folder)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_saved_names_are_the_published_ones(folder: Path) -> None:
    names = load_file(folder / "model.safetensors").keys()
    assert {
        "model.layers.0.mlp.gate_proj.weight",
        "model.layers.0.self_attn.q_conv1d.weight",
        "model.layers.0.self_attn.A_log",
        "model.layers.0.self_attn.f_a_proj.weight",
        "model.layers.1.self_attn.kv_a_proj_with_mqa.weight",
        "model.layers.1.block_sparse_moe.gate.e_score_correction_bias",
        "model.layers.1.block_sparse_moe.shared_experts.up_proj.weight",
        EXPERT,
        "lm_head.weight",
    } <= names
    assert not any("gate_up_proj" in name for name in names)


@pytest.mark.parametrize("layout", ["transformers", "kleval"])
@pytest.mark.parametrize("shard_bytes", [1, 20_000, 5 << 30])
def test_what_is_saved_is_read_back_to_the_bit(layout: str, shard_bytes: int, decoder: Decoder, tmp_path: Path) -> None:
    save(decoder, tmp_path, layout=layout, shard_bytes=shard_bytes)  # type: ignore[arg-type]
    assert (tmp_path / "model.safetensors.index.json").exists() == (shard_bytes < 5 << 30)
    assert same(load_decoder(tmp_path), decoder)


def test_the_config_that_is_read_back_is_the_one_that_was_saved(folder: Path, decoder: Decoder) -> None:
    assert load_decoder(folder).config == decoder.config


def test_a_factor_on_the_embeddings_is_multiplied_into_them(
    tiny_decoder: Callable[..., Decoder], tmp_path: Path
) -> None:
    decoder = tiny_decoder("kimi-linear").float()
    save(decoder, tmp_path)
    read = load_decoder(tmp_path)
    assert read.config.embedding_multiplier == 1
    ids = torch.arange(40)[None]
    with torch.no_grad():
        assert torch.equal(read.logits(read.hidden(ids)), decoder.logits(decoder.hidden(ids)))


@pytest.mark.parametrize("architecture", ["kimi-linear", "kimi-linear-rope", "gdn-h", "mla"])
def test_every_architecture_has_a_layout(
    architecture: str, tiny_decoder: Callable[..., Decoder], tmp_path: Path
) -> None:
    decoder = tiny_decoder(architecture, moe=True).float()
    save(decoder, tmp_path, layout="kleval")
    read = load_decoder(tmp_path)
    assert read.config == decoder.config
    assert same(read, decoder)


@pytest.mark.parametrize(
    ("architecture", "reason"), [("kimi-linear-rope", "do not rotate"), ("mla", "do not rotate"), ("gdn-h", "GDN")]
)
def test_what_transformers_cannot_be_is_not_saved_for_it(
    architecture: str, reason: str, tiny_decoder: Callable[..., Decoder], tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=f"{reason}.* layout kleval"):
        save(tiny_decoder(architecture), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_weights_are_never_written_over(folder: Path, decoder: Decoder) -> None:
    with pytest.raises(UsageError, match="holds weights already"):
        save(decoder, folder)


def rename_dense(tensors: Tensors) -> None:
    for name in [n for n in tensors if ".layers.0.mlp." in n]:
        tensors[name.replace(".mlp.", ".block_sparse_moe.")] = tensors.pop(name)


def rename_sparse(tensors: Tensors) -> None:
    for name in [n for n in tensors if ".block_sparse_moe." in n]:
        tensors[name.replace(".block_sparse_moe.", ".mlp.")] = tensors.pop(name)


def gate_module(tensors: Tensors) -> None:
    for name in [n for n in tensors if n.endswith(("A_log", "dt_bias", "f_a_proj.weight", "f_b_proj.weight"))]:
        tensors[name.replace("self_attn.", "self_attn.forget_gate.")] = tensors.pop(name)


def join_convolutions(tensors: Tensors) -> None:
    for layer in (0, 2):
        prefix = f"model.layers.{layer}.self_attn."
        tensors[f"{prefix}conv1d.weight"] = torch.cat([tensors.pop(f"{prefix}{x}_conv1d.weight") for x in "qkv"])


def below_a_larger_model(tensors: Tensors) -> None:
    for name in list(tensors):
        tensors[f"language_model.{name}"] = tensors.pop(name)


def inside_a_larger_model(tensors: Tensors) -> None:
    for name in [n for n in tensors if n.startswith("model.")]:
        tensors[name.replace("model.", "model.language_model.", 1)] = tensors.pop(name)


def rotary_frequencies(tensors: Tensors) -> None:
    tensors["model.layers.1.self_attn.rotary_emb.inv_freq"] = torch.ones(4)


def stack_experts(tensors: Tensors) -> None:
    for layer in (1, 2):
        prefix = f"model.layers.{layer}.block_sparse_moe.experts."
        parts = {m: [tensors.pop(f"{prefix}{e}.{m}.weight") for e in range(4)] for m in ("w1", "w3", "w2")}
        both = [torch.cat(pair) for pair in zip(parts["w1"], parts["w3"], strict=True)]
        tensors[f"{prefix}gate_up_proj"] = torch.stack(both)
        tensors[f"{prefix}down_proj"] = torch.stack(parts["w2"])


@pytest.mark.parametrize(
    "edit",
    [
        rename_dense,
        rename_sparse,
        gate_module,
        join_convolutions,
        stack_experts,
        below_a_larger_model,
        inside_a_larger_model,
        rotary_frequencies,
    ],
)
def test_other_names_of_the_same_tensors_are_read(
    edit: Callable[[Tensors], object], folder: Path, decoder: Decoder
) -> None:
    expected = load_decoder(folder)
    assert same(load_decoder(change(folder, edit)), expected)


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda t: t.pop(EXPERT), rf"tensor {EXPERT} \[12, 16\] is missing"),
        (
            lambda t: t.pop("model.layers.2.self_attn.A_log"),
            r"model\.layers\.2\.self_attn\.A_log \[1, 1, 2, 1\] is missing",
        ),
        (
            lambda t: t.update({"model.layers.0.extra": torch.ones(3)}),
            r"unexpected tensor model\.layers\.0\.extra \[3\]",
        ),
        (
            lambda t: t.update({EXPERT: torch.ones(5, 16)}),
            rf"{EXPERT} has shape \[5, 16\], config.json asks for \[12, 16\]",
        ),
        (lambda t: t.update({EXPERT: torch.ones(12, 16, dtype=torch.int8)}), rf"{EXPERT} is stored as I8"),
        (
            lambda t: t.update({EXPERT.replace("block_sparse_moe", "mlp"): t[EXPERT].clone()}),
            "are the same weights, stored twice",
        ),
    ],
)
def test_a_tensor_that_does_not_fit_is_named_with_its_shape(
    edit: Callable[[Tensors], object], said: str, folder: Path
) -> None:
    message = refused(change(folder, edit))
    assert str(folder) in message
    with pytest.raises(UsageError, match=said):
        load_decoder(folder)


def reconfigure(folder: Path, **changes: object) -> None:
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(values | changes))


def test_a_head_other_than_tied_embeddings_is_a_contradiction_and_the_same_is_none(folder: Path) -> None:
    reconfigure(folder, tie_word_embeddings=True)
    assert "tie_word_embeddings" in refused(folder)
    change(folder, lambda t: t.update({"lm_head.weight": t["model.embed_tokens.weight"].clone()}))
    assert load_decoder(folder).config.tie_word_embeddings


def test_layers_that_predict_further_tokens_are_passed_over_where_the_config_tells_of_them(
    folder: Path, decoder: Decoder
) -> None:
    layers = decoder.config.num_hidden_layers
    change(folder, lambda t: t.update({f"model.layers.{layers}.eh_proj.weight": torch.ones(2)}))
    assert f"unexpected tensor model.layers.{layers}.eh_proj.weight" in refused(folder)
    reconfigure(folder, num_nextn_predict_layers=1)
    assert same(load_decoder(folder), decoder)
    change(folder, lambda t: t.update({f"model.layers.{layers + 1}.eh_proj.weight": torch.ones(2)}))
    assert f"unexpected tensor model.layers.{layers + 1}" in refused(folder)


def test_faults_are_found_before_anything_is_allocated(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    change(folder, lambda t: t.pop(EXPERT))
    with torch.device("meta"):
        torch.empty(0)  # torch notes once which functions make tensors: before one of them is replaced
    monkeypatch.setattr(reader, "_fill", None)
    made: list[str] = []
    empty = torch.empty

    def recording(*shape: int, **more: object) -> Tensor:
        tensor: Tensor = empty(*shape, **more)  # type: ignore[call-overload]
        made.append(tensor.device.type)
        return tensor

    monkeypatch.setattr(torch, "empty", recording)
    assert "is missing" in refused(folder)
    assert set(made) == {"meta"}


def test_a_shard_that_is_cut_off_is_named(decoder: Decoder, tmp_path: Path) -> None:
    save(decoder, tmp_path, shard_bytes=20_000)
    shard = sorted(tmp_path.glob("model-*.safetensors"))[1]
    shard.write_bytes(shard.read_bytes()[:-100])
    assert f"{shard} cannot be read as safetensors, it may be cut off" in refused(tmp_path)


def test_a_tensor_in_two_shards_is_stored_twice(decoder: Decoder, tmp_path: Path) -> None:
    save(decoder, tmp_path, shard_bytes=20_000)
    one, other = sorted(tmp_path.glob("model-*.safetensors"))[:2]
    name, tensor = next(iter(load_file(one).items()))
    save_file({**load_file(other), name: tensor + 1}, other)
    assert f"{name} and that in {one.name} are the same weights, stored twice" in refused(tmp_path)


def test_a_shard_that_is_not_there_is_named(decoder: Decoder, tmp_path: Path) -> None:
    save(decoder, tmp_path, shard_bytes=20_000)
    shard = sorted(tmp_path.glob("model-*.safetensors"))[1]
    shard.unlink()
    assert f"{shard} is missing" in refused(tmp_path)


@pytest.mark.parametrize(
    ("change_index", "said"),
    [
        (lambda m: m.update({"model.norm.weight": "../elsewhere.safetensors"}), "no safetensors file of this folder"),
        (lambda m: m.update({"model.norm.weight": "x" * 999 + ".safetensors"}), "no safetensors file of this folder"),
        (lambda m: m.update({"model.norm.weight": "\0.safetensors"}), "no safetensors file of this folder"),
        (lambda m: m.clear(), "has no weight_map"),
    ],
)
def test_an_index_that_is_wrong_says_where(
    change_index: Callable[[dict[str, str]], object], said: str, decoder: Decoder, tmp_path: Path
) -> None:
    save(decoder, tmp_path, shard_bytes=20_000)
    file = tmp_path / "model.safetensors.index.json"
    index = json.loads(file.read_text())
    change_index(index["weight_map"])
    file.write_text(json.dumps(index))
    assert said in refused(tmp_path)


def test_entries_of_an_index_that_no_shard_has_are_passed_over(decoder: Decoder, tmp_path: Path) -> None:
    save(decoder, tmp_path, shard_bytes=20_000)
    file = tmp_path / "model.safetensors.index.json"
    index = json.loads(file.read_text())
    index["weight_map"]["model.more.weight"] = next(iter(index["weight_map"].values()))
    file.write_text(json.dumps(index))
    assert same(load_decoder(tmp_path), decoder)


def test_a_gguf_file_is_refused_with_what_runs_it(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "model-Q4_K_M.gguf")
    assert "model-Q4_K_M.gguf is a GGUF file, which llama.cpp's server runs" in refused(folder)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "consolidated.00.pth"])
def test_pickled_weights_are_refused_with_a_way_out(name: str, folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / name)
    message = refused(folder)
    assert name in message
    assert "can run code" in message
    assert "save_pretrained" in message


def test_weights_under_another_name_are_pointed_at(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "weights.safetensors")
    assert "weights.safetensors needs an index" in refused(folder)


def test_casting_leaves_decay_rates_and_router_biases_in_float32(folder: Path) -> None:
    exact = dict(load_decoder(folder).named_parameters())
    for name, parameter in load_decoder(folder, dtype=torch.bfloat16).named_parameters():
        if name.endswith(("A_log", "dt_bias", "e_score_correction_bias")):
            assert parameter.dtype == torch.float32
            assert torch.equal(parameter, exact[name])
        else:
            assert parameter.dtype == torch.bfloat16


def test_without_a_dtype_weights_are_as_the_embeddings_are_stored(folder: Path, decoder: Decoder) -> None:
    def cast(tensors: Tensors) -> None:
        for name in tensors:
            if name == "model.embed_tokens.weight" or "_proj" in name:
                tensors[name] = tensors[name].bfloat16()

    dtypes = {p.dtype for n, p in load_decoder(change(folder, cast)).named_parameters() if n.endswith("norm.weight")}
    assert dtypes == {torch.bfloat16}


def test_weights_that_do_not_fit_are_one_line(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    empty = torch.empty

    def full(*shape: int, **more: object) -> Tensor:
        if more.get("device") == torch.device("cpu"):
            raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate")
        tensor: Tensor = empty(*shape, **more)  # type: ignore[call-overload]
        return tensor

    monkeypatch.setattr(torch, "empty", full)
    assert "GB of weights do not fit into the memory of cpu" in refused(folder)
