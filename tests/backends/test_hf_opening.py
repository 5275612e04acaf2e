"""Transformers models are opened with the hf backend: what they bear is found out, settings are told, and what cannot be is refused."""

from __future__ import annotations

import inspect
import json
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hf_tiny import KINDS, PICTURES, ask, check_same, opened, prompts, scores, transformers

from kleval.backends.hf import _torch_only, open_hf
from kleval.backends.hf_model import HFModel
from kleval.backends.registry import open_backend
from kleval.backends.spec import BackendSpec
from kleval.types import Completion, UsageError

NAMES = {"cache", "past_key_values", "cache_params"}


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_model_bears_is_found_out(hf_folder: Any, kind: str) -> None:
    adapter = opened(hf_folder(kind))._adapter
    assert adapter.batched
    assert (adapter.chunked, adapter.padded, adapter.copied) == (kind != "mamba",) * 3
    assert (adapter.bytes_per_token > 0) == (
        kind not in ("mistral", "mamba")
    )  # whose window is full; who has states alone
    assert (adapter.bytes_fixed > 0) == (kind != "llama")  # a full window is as fixed as a state


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_is_opened_and_asked_without_a_warning_of_what_will_go(hf_folder: Any, kind: str) -> None:
    folder = hf_folder(kind)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("default", ResourceWarning)  # other tests' files, whenever the collector runs
        outcomes = ask(opened(folder), [*prompts(12, 30), *scores((20, 3))])
    assert all(isinstance(outcome, Completion) for outcome in outcomes)


@pytest.mark.parametrize("kind", PICTURES)
def test_a_model_for_pictures_too_is_loaded_by_the_class_that_it_names(hf_folder: Any, kind: str) -> None:
    """Its text alone is asked; in chunks as in one piece."""
    folder = hf_folder(kind)
    (named,) = json.loads((folder / "config.json").read_text("utf-8"))["architectures"]
    assert named.endswith("ForConditionalGeneration")
    backend = opened(folder)
    assert backend.describe()["architecture"] == named
    asked = [*prompts(12, 30), *scores((20, 3))]
    outcomes = ask(backend, asked)
    assert all(isinstance(outcome, Completion) for outcome in outcomes)
    check_same(outcomes, ask(opened(folder, prefill_tokens=8, batch=1), asked))


@pytest.mark.parametrize("name", ["cache", "past_key_values", "cache_params"])
def test_a_model_that_names_no_cache_is_asked_how_it_takes_it(hf_folder: Any, name: str) -> None:
    """Its forward takes what comes; only by one of the names does the cache go on."""
    model = opened(hf_folder("llama"))._adapter.model
    takes = next(n for n in ("cache", "past_key_values") if n in inspect.signature(model.forward).parameters)

    def forward(**given: Any) -> SimpleNamespace:
        given = {key: value for key, value in given.items() if key not in NAMES - {name}}
        out = model(**{takes if key == name else key: value for key, value in given.items()})
        return SimpleNamespace(logits=out.logits, **{name: dict(out.items())[takes]})

    class Own(torch.nn.Module):
        def parameters(self, recurse: bool = True) -> Any:
            return model.parameters(recurse)

        def forward(self, **given: Any) -> SimpleNamespace:
            return forward(**given)

    adapter = HFModel(Own(), torch.device("cpu"), 257)
    assert adapter.find_out() == ""
    assert (adapter.chunked, adapter.batched, adapter.copied) == (True, True, True)


@pytest.mark.parametrize("kind", ["kimi_linear", "mamba"])
def test_half_precision_hides_neither_what_a_model_bears_nor_what_it_does_not(hf_folder: Any, kind: str) -> None:
    adapter = opened(hf_folder(kind), dtype="bfloat16")._adapter
    assert (adapter.chunked, adapter.copied) == (kind != "mamba",) * 2
    assert adapter.padded <= (kind != "mamba")


@pytest.mark.parametrize("kind", ["minimax", "jamba"])
def test_half_precision_does_not_hide_that_chunks_lose_a_state(kind: str) -> None:
    """What they lose is ten times what rounding gives, and less than a router's choice that tips."""
    small = {
        "vocab_size": 257, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4, "num_attention_heads": 2,
        "num_key_value_heads": 1, "num_experts_per_tok": 2, "bos_token_id": None, "eos_token_id": 256, "pad_token_id": 0,
    }  # fmt: skip
    torch.manual_seed(0)
    if kind == "minimax":
        kinds = ["linear_attention", "full_attention"] * 2
        config = transformers.MiniMaxConfig(**small, num_local_experts=4, layer_types=kinds, block_size=64)
    else:
        own = {"num_experts": 2, "attn_layer_offset": 1, "attn_layer_period": 2, "mamba_d_state": 8, "mamba_dt_rank": 8}
        config = transformers.JambaConfig(**small, **own)
    with _torch_only(torch.device("cpu")):
        model = transformers.AutoModelForCausalLM.from_config(config).eval()
    for name, weight in model.named_parameters():
        if weight.ndim > 1 and not any(part in name for part in ("router", "conv")):
            weight.data *= 30 if "embed" in name else 6 if kind == "minimax" else 20
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        adapter = HFModel(model.to(dtype), torch.device("cpu"), 257)
        assert adapter.find_out() == ""
        assert (adapter.chunked, adapter.copied) == (False, False)


def test_auto_is_hf_for_what_kleval_has_no_decoder_for(hf_folder: Any) -> None:
    assert open_backend(str(hf_folder("llama"))).name == "hf"
    assert open_backend(str(hf_folder("kimi_linear"))).name == "native"
    assert open_backend(str(hf_folder("kimi_linear")), backend="hf").name == "hf"


def test_describe_holds_what_changes_results(hf_folder: Any) -> None:
    said = opened(hf_folder("llama"), dtype="bfloat16").describe()
    assert json.loads(json.dumps(said)) == said
    assert (said["dtype"], said["architecture"], said["trust_remote_code"]) == ("bfloat16", "LlamaForCausalLM", False)
    assert len(said["weights_sha256"]) == 64


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda p: (p / "model.safetensors").rename(p / "pytorch_model.bin"), "safetensors"),
        (lambda p: (p / "tokenizer.json").unlink(), "tokenizer"),
        (lambda p: (p / "config.json").unlink(), "config.json"),
        (lambda p: (p / "config.json").write_text('{"model_type": "nonesuch"}'), "cannot load"),
        (lambda p: (p / "config.json").write_text('{"model_type": "t5"}'), "cannot load"),
        (
            lambda p: (p / "config.json").write_text(
                '{"model_type": "own", "auto_map": {"AutoConfig": "c.C", "AutoModelForCausalLM": "m.M"}}'
            ),
            "--trust-remote-code",
        ),
    ],
)
def test_a_folder_that_cannot_be_used_is_one_clear_line(hf_folder: Any, tmp_path: Path, change: Any, said: str) -> None:
    for file in hf_folder("llama").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    change(tmp_path)
    with pytest.raises(UsageError, match=said) as error:
        opened(tmp_path)
    assert "\n" not in str(error.value)


def test_a_model_whose_weights_are_not_all_there_is_refused(hf_folder: Any, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    for file in hf_folder("llama").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["model.layers.1.mlp.up_proj.weight"]
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(UsageError, match=r"lacks 1 of the weights.*model.layers.1.mlp.up_proj.weight"):
        opened(tmp_path)


def test_a_tensor_of_another_shape_is_named(hf_folder: Any, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    for file in hf_folder("llama").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    tensors = load_file(tmp_path / "model.safetensors")
    tensors["model.layers.1.mlp.up_proj.weight"] = torch.ones(5, 7)
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    said = r"model\.layers\.1\.mlp\.up_proj\.weight has shape \[5, 7\], its config\.json asks for \[48, 32\]"
    with pytest.raises(UsageError, match=said):
        opened(tmp_path)


def test_chunks_that_are_a_thousandth_off_are_no_rounding() -> None:
    """MiniMax goes on from its cache token by token, but computes a chunk behind others otherwise."""
    layers = ["linear_attention", "full_attention"]
    torch.manual_seed(0)
    config = transformers.MiniMaxConfig(
        vocab_size=257, hidden_size=64, intermediate_size=96, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=2, head_dim=16, num_local_experts=4, num_experts_per_tok=2, layer_types=layers * 2,
        bos_token_id=None, eos_token_id=256, pad_token_id=0,
    )  # fmt: skip
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    model.get_input_embeddings().weight.data *= 30
    adapter = HFModel(model, torch.device("cpu"), 257)
    assert adapter.find_out() == ""
    assert not adapter.chunked


@pytest.mark.parametrize("kind", ["RwkvConfig", "BertConfig"])
def test_a_model_that_cannot_go_on_from_a_cache_is_refused(hf_folder: Any, tmp_path: Path, kind: str) -> None:
    for file in hf_folder("llama").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    small = {
        "vocab_size": 257,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "intermediate_size": 48,
        "num_attention_heads": 2,
    }
    transformers.AutoModelForCausalLM.from_config(getattr(transformers, kind)(**small)).save_pretrained(tmp_path)
    with pytest.raises(UsageError, match="cannot be asked token by token"):
        opened(tmp_path)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"model": "no/such/folder/here"}, "no folder"),
        ({"model": "kimi-linear"}, "--backend native"),
        ({"model": ".", "dtype": "float31"}, "unknown dtype"),
        ({"model": ".", "device": "cuda:99"}, "not there"),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        open_hf(BackendSpec(**settings))
