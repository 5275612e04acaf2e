"""Small random models for llama.cpp's server, each beside the same weights as kleval or transformers reads them.

`make(kind, folder, python)` writes folder/config.json with weights and a tokenizer of bytes, and folder/model.gguf; the latter by
another interpreter that has gguf and numpy, which runs this file: `python verify_gguf.py KIND FOLDER`.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import native_vs_llamacpp as tiny
import small_models

END = "<|eos|>"


def make(kind: str, folder: Path, python: str) -> Path:
    """kind: llama or kimi-linear."""
    if not (folder / "model.gguf").exists():
        folder.mkdir(parents=True, exist_ok=True)
        tokens = _tokenizer(folder)
        (folder / "tokens.json").write_text(json.dumps(tokens))
        (_kimi if kind == "kimi-linear" else _llama)(folder)
        subprocess.run([python, __file__, kind, str(folder)], check=True)
    return folder


def _tokenizer(folder: Path) -> list[str]:
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = [END, *alphabet]
    tokens += [f"<{i}>" for i in range(len(tokens), tiny.VOCAB)]
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, []))
    tokenizer.add_special_tokens([AddedToken(END, special=True)])
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"eos_token": END}))
    return tokens


def _kimi(folder: Path) -> None:
    from dataclasses import replace

    import torch

    from kleval.models.checkpoint import save
    from kleval.models.random import random_decoder

    config = replace(tiny.make_decoder().config, max_position_embeddings=small_models.MAX_TOKENS)
    decoder = random_decoder(config, dtype=torch.float32)
    decoder.lm_head.weight.mul_(2.0)
    save(decoder, folder)
    tiny.save_arrays(decoder, folder / "arrays.npz")


def _llama(folder: Path) -> None:
    import numpy as np
    import torch

    torch.manual_seed(0)
    model = small_models.llama(vocab_size=tiny.VOCAB, eos_token_id=0, tie_word_embeddings=False, rms_norm_eps=1e-5)
    small_models.move_apart(model)
    model.save_pretrained(folder)
    names = {
        "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
        "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
    }  # fmt: skip
    top = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
    shape = model.config
    rotated = {"self_attn.q_proj": shape.num_attention_heads, "self_attn.k_proj": shape.num_key_value_heads}
    out: dict[str, Any] = {}
    for name, parameter in model.named_parameters():
        stem, x = name.removesuffix(".weight"), parameter.detach().numpy()
        if stem in top:
            out[f"{top[stem]}.weight"] = x
            continue
        _, _, layer, rest = stem.split(".", 3)
        if heads := rotated.get(rest):
            # Neighbouring channels are rotated together there, halves of a head here.
            x = x.reshape(heads, 2, -1, x.shape[1]).swapaxes(1, 2).reshape(x.shape)
        out[f"blk.{layer}.{names[rest]}.weight"] = x
    np.savez(folder / "arrays.npz", **{name: np.ascontiguousarray(x, dtype=np.float32) for name, x in out.items()})


def _write_llama(folder: Path, tokens: list[str]) -> None:
    import gguf

    shape = json.loads((folder / "config.json").read_text())
    writer = gguf.GGUFWriter(str(folder / "model.gguf"), "llama")
    writer.add_name("tiny random Llama")
    writer.add_vocab_size(len(tokens))
    writer.add_context_length(shape["max_position_embeddings"])
    writer.add_block_count(shape["num_hidden_layers"])
    writer.add_embedding_length(shape["hidden_size"])
    writer.add_feed_forward_length(shape["intermediate_size"])
    writer.add_head_count(shape["num_attention_heads"])
    writer.add_head_count_kv(shape["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(shape["rms_norm_eps"])
    writer.add_rope_dimension_count(shape["hidden_size"] // shape["num_attention_heads"])
    writer.add_rope_freq_base(10000.0)
    tiny.finish_gguf(writer, folder / "arrays.npz", tokens)


if __name__ == "__main__":
    kind, place = sys.argv[1], Path(sys.argv[2])
    known = json.loads((place / "tokens.json").read_text())
    if kind == "llama":
        _write_llama(place, known)
    else:
        tiny.write_gguf(place / "arrays.npz", place / "model.gguf", known)
