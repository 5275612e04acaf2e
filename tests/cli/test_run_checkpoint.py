"""`kleval run --model FOLDER` on a checkpoint that transformers wrote, and on the same one broken in every usual way."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from kleval.cli.main import call
from kleval.models import registry

TOKENIZER = Path(registry.__file__).parent / "nano"
SMOKE = ["run", "--model", "./checkpoint", "--suite", "smoke", "--ctx", "2k", "--quiet"]


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def written(kimi_linear: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two layers of Kimi Linear, random, in several shards, with the tokenizer of the shipped models."""
    torch.manual_seed(0)
    config = kimi_linear.KimiLinearConfig(
        vocab_size=1536,
        hidden_size=32,
        intermediate_size=48,
        moe_intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        num_experts=4,
        num_experts_per_token=2,
        num_shared_experts=1,
        kv_lora_rank=16,
        qk_rope_head_dim=8,
        qk_nope_head_dim=8,
        v_head_dim=8,
        linear_head_dim=16,
        linear_num_heads=2,
        layer_types=["linear_attention", "full_attention"],
        mlp_layer_types=["dense", "sparse"],
        bos_token_id=None,
        eos_token_id=1535,
        pad_token_id=None,
    )
    folder = tmp_path_factory.mktemp("written")
    kimi_linear.KimiLinearForCausalLM(config).save_pretrained(folder, max_shard_size="50KB")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(TOKENIZER / name, folder)
    return folder


@pytest.fixture
def checkpoint(written: Path) -> Path:
    """A copy of it in the current directory, to be broken."""
    return Path(shutil.copytree(written, "checkpoint"))


@pytest.mark.usefixtures("checkpoint")
def test_the_smoke_suite_runs_on_what_transformers_wrote(capsys: pytest.CaptureFixture[str]) -> None:
    assert call([*SMOKE, "--out", "out"]) == 0
    assert "./checkpoint: score" in capsys.readouterr().out
    manifest = json.loads(Path("out/run.json").read_text())
    assert manifest["counts"]["answered"] == manifest["counts"]["planned"] >= 13
    described = manifest["models"]["./checkpoint"]["describe"]
    assert len(described["weights_sha256"]) == 64
    assert described["config"]["layer_mixers"] == ["kda", "mla"]


def cut_a_shard(folder: Path) -> str:
    shard = sorted(folder.glob("*.safetensors"))[1]
    shard.write_bytes(shard.read_bytes()[:-9])
    return f"{shard} cannot be read as safetensors"


def reshape(folder: Path) -> str:
    name = "model.layers.1.block_sparse_moe.experts.0.w2.weight"
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    shard = folder / index["weight_map"][name]
    save_file(load_file(shard) | {name: torch.ones(16, 32)}, shard)
    return f"{shard}: {name} has shape [16, 32], config.json asks for [32, 16]"


def rename_architecture(folder: Path) -> str:
    values = {"model_type": "jamba", "architectures": ["JambaForCausalLM"]}
    (folder / "config.json").write_text(json.dumps(values))
    return "lacks weights that its config.json asks for"


def pickle(folder: Path) -> str:
    for file in folder.glob("*.safetensors*"):
        file.unlink()
    torch.save({"a": torch.ones(2)}, folder / "pytorch_model.bin")
    return "holds pickled weights only (pytorch_model.bin)"


def drop_tokenizer(folder: Path) -> str:
    (folder / "tokenizer.json").unlink()
    return "put its tokenizer.json there, or its tiktoken.model and tokenizer_config.json"


def forget_pattern(folder: Path) -> str:
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({k: v for k, v in values.items() if k != "layer_types"}))
    return "neither linear_attn_config"


def change_vocabulary(folder: Path) -> str:
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(values | {"vocab_size": 100}))
    return "its tokenizer knows 1536 tokens and its config.json 100"


@pytest.mark.parametrize(
    "spoil",
    [cut_a_shard, reshape, rename_architecture, pickle, drop_tokenizer, forget_pattern, change_vocabulary],
)
def test_a_spoilt_checkpoint_is_one_line_and_exit_code_2(
    spoil: Callable[[Path], str], checkpoint: Path, one_line: Callable[..., str]
) -> None:
    said = spoil(checkpoint)
    assert said in one_line([*SMOKE, "--out", "out"])
    assert not Path("out").exists()


def test_a_folder_that_is_not_there_is_one_line(one_line: Callable[..., str]) -> None:
    assert "there is no folder ./checkpoint" in one_line(SMOKE)


def test_a_file_is_not_a_folder(checkpoint: Path, one_line: Callable[..., str]) -> None:
    shard = next(checkpoint.glob("*.safetensors"))
    assert "give the folder" in one_line(["run", "--model", str(shard), "--suite", "smoke"])


def to_gguf(folder: Path) -> None:
    for file in folder.iterdir():
        file.unlink()
    (folder / "model-q4.gguf").write_bytes(b"GGUF")


def configure(**more: Any) -> Callable[[Path], None]:
    def edit(folder: Path) -> None:
        values = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(values | more))

    return edit


FOREIGN = [
    (configure(quantization_config={"quant_method": "awq"}), "quantization_config is awq"),
    (configure(quantization={"bits": 4, "group_size": 64}), "quantized by MLX"),
    (configure(swiglu_limit=7.0), "swiglu_limit is 7.0"),
]
GGUF = (to_gguf, "is a GGUF file, which llama.cpp's server runs (llama-server -m model-q4.gguf)")
RUN = ["run", "--suite", "smoke", "--ctx", "1k", "--quiet", "--model"]
COSTS = (["ls", "models"], ["profile", "memory", "--model"])


@pytest.mark.parametrize(
    ("command", "edit", "said"), [*((RUN, *one) for one in FOREIGN), *((command, *GGUF) for command in (RUN, *COSTS))]
)
def test_checkpoints_of_other_tools_are_one_line(
    command: list[str], edit: Callable[[Path], Any], said: str, checkpoint: Path, one_line: Callable[..., str]
) -> None:
    edit(checkpoint)
    assert said in one_line([*command, str(checkpoint)])


@pytest.mark.parametrize("command", COSTS)
@pytest.mark.parametrize("edit", [edit for edit, _ in FOREIGN])
def test_what_they_cost_is_counted_from_their_config(
    command: list[str], edit: Callable[[Path], Any], checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edit(checkpoint)
    assert call([*command, str(checkpoint)]) == 0
    assert "checkpoint" in capsys.readouterr().out


@pytest.mark.parametrize("backend", ["native", "hf", "auto"])
def test_a_gguf_file_is_one_line_in_every_backend(backend: str, checkpoint: Path, one_line: Callable[..., str]) -> None:
    to_gguf(checkpoint)
    file = str(checkpoint / "model-q4.gguf")
    assert "is a GGUF file" in one_line([*SMOKE, "--model", file, "--backend", backend])
