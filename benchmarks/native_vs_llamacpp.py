"""kleval's native engine against llama.cpp, the fastest CPU engine that knows Kimi Linear: prefill and TPOT on one thread.

    python benchmarks/native_vs_llamacpp.py [--lengths 1k,4k,8k] [--rounds 5] [--python OTHER_VENV/bin/python]

Skipped with the reason where llama-cpp-python and gguf are missing; --python names another interpreter that has them (neither torch
nor kleval is needed there). The model: 8 layers (KDA, every fourth MLA), 2.4 M parameters, float32, random. Its weights are written
once as GGUF, with the names of llama.cpp's own converter: latent up-projections split and transposed for absorbed attention, -exp of
A_log, dt_bias as a bias of ssm_dt. rms_norm_eps is 1e-6 because llama.cpp uses it for every norm, where the published model has a
fixed 1e-6 for queries, keys and latents. Greedy continuations and the log-likelihood of a prompt must agree before anything is timed.
A round is each engine once, in a process of its own, in turn.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common import (
    MIB,
    length,
    peak_bytes,
    peaks,
    print_environment,
    print_goals,
    print_table,
    ratio_of,
    run_child,
    short,
    spread,
)
from native_vs_transformers import STEPS, per_token, write

LAYERS, HIDDEN, HEADS, DIM, VOCAB = 8, 128, 4, 32, 512
NOPE, ROPE, VALUE, RANK = 32, 16, 32, 64
DENSE, EXPERTS, TOP_K, EXPERT_WIDTH, SCALING = 256, 8, 2, 64, 2.446
EPS = 1e-6
CHUNK = 2048  # of the native engine
CHECK_TOKENS, CHECK_STEPS, TOLERANCE = 300, 24, 1e-3
GOALS = {("prefill", tokens): 2.8 for tokens in (1024, 4096, 8192)} | {("tpot", 1024): 5.0, ("tpot", 8192): 8.0}
MIXERS = tuple("mla" if (i + 1) % 4 == 0 else "kda" for i in range(LAYERS))


def make_decoder(seed: int = 0) -> Any:
    from kleval.models.config import ModelConfig
    from kleval.models.decoder import Decoder

    config = ModelConfig(
        architecture="kimi-linear",
        vocab_size=VOCAB,
        hidden_size=HIDDEN,
        layer_mixers=MIXERS,
        kda_num_heads=HEADS,
        kda_head_dim=DIM,
        num_attention_heads=HEADS,
        qk_nope_head_dim=NOPE,
        qk_rope_head_dim=ROPE,
        v_head_dim=VALUE,
        kv_lora_rank=RANK,
        mla_use_nope=True,
        intermediate_size=DENSE,
        num_experts=EXPERTS,
        num_experts_per_token=TOP_K,
        num_shared_experts=1,
        moe_intermediate_size=EXPERT_WIDTH,
        routed_scaling_factor=SCALING,
        first_k_dense_replace=1,
        rms_norm_eps=EPS,
        tie_word_embeddings=False,
        eos_token_id=0,
    )
    decoder = Decoder(config).requires_grad_(False).eval()
    decoder.init_weights(seed)
    return decoder


def save_arrays(decoder: Any, file: Path) -> None:
    """One float32 array per GGUF tensor, in the order of its dimensions as numpy has them."""
    import numpy as np

    out: dict[str, Any] = {}
    plain = {
        "self_attn.q_proj": "attn_q",
        "self_attn.k_proj": "attn_k",
        "self_attn.v_proj": "attn_v",
        "self_attn.o_proj": "attn_output",
        "self_attn.f_a_proj": "ssm_f_a",
        "self_attn.f_b_proj": "ssm_f_b",
        "self_attn.g_a_proj": "ssm_g_a",
        "self_attn.g_b_proj": "ssm_g_b",
        "self_attn.b_proj": "ssm_beta",
        "self_attn.o_norm": "ssm_norm",
        "self_attn.kv_a_proj_with_mqa": "attn_kv_a_mqa",
        "self_attn.kv_a_layernorm": "attn_kv_a_norm",
        "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm",
        "mlp.gate_proj": "ffn_gate",
        "mlp.up_proj": "ffn_up",
        "mlp.down_proj": "ffn_down",
        "block_sparse_moe.gate": "ffn_gate_inp",
        "block_sparse_moe.shared_experts.gate_proj": "ffn_gate_shexp",
        "block_sparse_moe.shared_experts.up_proj": "ffn_up_shexp",
        "block_sparse_moe.shared_experts.down_proj": "ffn_down_shexp",
    }
    top = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
    for name, parameter in decoder.named_parameters():
        x = parameter.numpy()
        stem, _, last = name.rpartition(".")
        if stem in top:
            out[f"{top[stem]}.weight"] = x
            continue
        _, _, layer, rest = stem.split(".", 3)
        block = f"blk.{layer}."
        if rest in plain and last == "weight":
            out[f"{block}{plain[rest]}.weight"] = x
        elif rest.endswith("_conv1d"):
            out[f"{block}ssm_conv1d_{rest[-8]}.weight"] = x.reshape(1, len(x), 1, -1)
        elif last == "A_log":
            out[f"{block}ssm_a"] = -np.exp(x)
        elif last == "dt_bias":
            out[f"{block}ssm_dt.bias"] = x
        elif last == "e_score_correction_bias":
            out[f"{block}exp_probs_b.bias"] = x
        elif rest == "self_attn.kv_b_proj":
            both = x.reshape(HEADS, NOPE + VALUE, RANK)
            out[f"{block}attn_k_b.weight"] = both[:, :NOPE].transpose(0, 2, 1)
            out[f"{block}attn_v_b.weight"] = both[:, NOPE:]
        elif last == "gate_up_proj":
            out[f"{block}ffn_gate_exps.weight"], out[f"{block}ffn_up_exps.weight"] = np.split(x, 2, 1)
        elif last == "down_proj":
            out[f"{block}ffn_down_exps.weight"] = x
        else:
            raise SystemExit(f"no GGUF name for {name}")
    np.savez(file, **{name: np.ascontiguousarray(x, dtype=np.float32) for name, x in out.items()})


def write_gguf(arrays: Path, file: Path, tokens: Sequence[str] = ()) -> None:
    """Keys as llama.cpp's converter writes them for Kimi Linear. tokens: the vocabulary, else one that nothing here tokenizes with."""
    import gguf

    writer = gguf.GGUFWriter(str(file), "kimi-linear")
    writer.add_name("tiny random Kimi Linear")
    writer.add_vocab_size(VOCAB)
    writer.add_context_length(1 << 20)
    writer.add_block_count(LAYERS)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(DENSE)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv([1 if mixer == "mla" else 0 for mixer in MIXERS])
    writer.add_layer_norm_rms_eps(EPS)
    writer.add_ssm_conv_kernel(4)
    writer.add_kda_head_dim(DIM)
    writer.add_kv_lora_rank(RANK)
    writer.add_rope_dimension_count(ROPE)
    writer.add_key_length(RANK + ROPE)
    writer.add_value_length(RANK)
    writer.add_key_length_mla(NOPE + ROPE)
    writer.add_value_length_mla(VALUE)
    writer.add_expert_count(EXPERTS)
    writer.add_expert_used_count(TOP_K)
    writer.add_expert_feed_forward_length(EXPERT_WIDTH)
    writer.add_expert_shared_count(1)
    writer.add_leading_dense_block_count(1)
    writer.add_expert_weights_scale(SCALING)
    writer.add_expert_weights_norm(True)
    writer.add_expert_gating_func(gguf.ExpertGatingFuncType.SIGMOID)
    finish_gguf(writer, arrays, tokens)


def finish_gguf(writer: Any, arrays: Path, tokens: Sequence[str] = ()) -> None:
    """The vocabulary and the tensors, behind a model's own keys, and the file is whole. tokens: as of `write_gguf`."""
    import gguf
    import numpy as np

    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list([token.encode() for token in tokens or [f"<{i}>" for i in range(VOCAB)]])
    writer.add_token_types(
        [gguf.TokenType.CONTROL if tokens else gguf.TokenType.NORMAL] + [gguf.TokenType.NORMAL] * (VOCAB - 1)
    )
    writer.add_token_merges(["< 0"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(0)
    with np.load(arrays) as stored:
        for name in stored.files:
            writer.add_tensor(name, stored[name])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


class LlamaCpp:
    """eval(ids) appends tokens; last() are the logits after them."""

    def __init__(self, file: str, context: int, every: bool) -> None:
        from llama_cpp import Llama

        self._every = every
        self._llama = Llama(
            file, n_ctx=context, n_threads=1, n_threads_batch=1, n_batch=512, logits_all=every, verbose=False
        )

    def reset(self) -> None:
        self._llama.reset()
        self._llama._ctx.kv_cache_clear()

    def eval(self, ids: list[int]) -> None:
        self._llama.eval(ids)

    def write(self, token: int, count: int) -> int:
        for _ in range(count):
            self._llama.eval([token])
            token = int(self.last().argmax())
        return token

    def last(self) -> Any:
        import llama_cpp
        import numpy as np

        pointer = llama_cpp.llama_get_logits_ith(self._llama.ctx, -1)
        return np.ctypeslib.as_array(pointer, shape=(VOCAB,)).astype(np.float64)

    def rows(self, count: int) -> Any:
        return self._llama.scores[:count].astype("float64")


class Native:
    def __init__(self, context: int) -> None:
        import torch

        torch.set_num_threads(1)
        self._torch, self._decoder, self._context = torch, make_decoder(), context
        self.reset()

    def reset(self) -> None:
        from kleval.models.cache import HybridCache
        from kleval.models.stepper import Stepper

        self._cache, self._hidden = HybridCache(self._decoder.config, 1, capacity=self._context), []
        self._stepper = Stepper(self._decoder, self._cache)

    def eval(self, ids: list[int]) -> None:
        with self._torch.inference_mode():
            parts = self._torch.tensor([ids]).split(CHUNK, 1)
            self._hidden = [self._decoder.hidden(part, self._cache) for part in parts]

    def write(self, token: int, count: int) -> int:
        with self._torch.inference_mode():
            return write(self._stepper, token, count)

    def last(self) -> Any:
        return self._decoder.logits(self._hidden[-1][0, -1]).double().numpy()

    def rows(self, count: int) -> Any:
        return self._decoder.logits(self._torch.cat(self._hidden, 1)[0, :count]).double().numpy()


def child(job: dict[str, Any]) -> dict[str, Any]:
    """{"engine", "folder", "lengths"}: without lengths, what is compared; else rows of figures."""
    folder, lengths = Path(job["folder"]), job.get("lengths", [])
    ids = json.loads((folder / "ids.json").read_text())
    context = max([CHECK_TOKENS, *lengths]) + STEPS + 1
    if job["engine"] == "native":
        engine: Any = Native(context)
    else:
        file = folder / "model.gguf"
        if not file.exists():
            write_gguf(folder / "arrays.npz", file)
        engine = LlamaCpp(str(file), context, every=not lengths)
    if not lengths:
        return compare(engine, ids)
    engine.eval(ids[:CHECK_TOKENS])  # what is made at first use
    return {"rows": [measure(engine, ids[:tokens]) for tokens in sorted(lengths)]}


def compare(engine: Any, ids: list[int]) -> dict[str, Any]:
    import numpy as np

    engine.eval(ids[:CHECK_TOKENS])
    rows = engine.rows(CHECK_TOKENS)[:-1]
    top = rows.max(-1, keepdims=True)
    logprobs = rows - top - np.log(np.exp(rows - top).sum(-1, keepdims=True))
    likelihood = float(logprobs[np.arange(CHECK_TOKENS - 1), ids[1:CHECK_TOKENS]].sum())
    greedy = []
    for _ in range(CHECK_STEPS):
        greedy.append(int(engine.last().argmax()))
        engine.eval(greedy[-1:])
    return {"likelihood": likelihood, "greedy": greedy}


def measure(engine: Any, ids: list[int]) -> dict[str, float]:
    """Once; lengths must come in ascending order, since the peak of a process only grows."""
    engine.reset()
    started = time.process_time()
    engine.eval(ids)
    engine.last()
    return {
        "prefill": time.process_time() - started,
        "tpot": per_token(engine.write),
        "peak": float(peak_bytes()),
    }


def missing(python: str) -> str | None:
    probe = "import llama_cpp, gguf; print(llama_cpp.__version__)"
    done = subprocess.run([python, "-c", probe], capture_output=True, text=True)
    return None if done.returncode == 0 else (done.stderr.strip().splitlines() or ["no interpreter"])[-1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", default="1k,4k,8k")
    parser.add_argument("--python", default=sys.executable, help="an interpreter with llama-cpp-python and gguf")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--child", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        print(json.dumps(child(json.loads(given.child))))
        return
    if reason := missing(given.python):
        print(f"skipped: llama.cpp cannot be used ({reason}): pip install llama-cpp-python gguf, or give --python")
        return
    import torch

    lengths = sorted(length(text) for text in given.lengths.split(","))
    probe = [given.python, "-c", "import llama_cpp; print(llama_cpp.__version__)"]
    version = subprocess.run(probe, capture_output=True, text=True).stdout.strip()
    print_environment(torch=torch.__version__, **{"llama-cpp-python": version})
    torch.set_num_threads(1)
    print(peaks())
    ids = torch.randint(0, VOCAB, (max([CHECK_TOKENS, *lengths]),), generator=torch.Generator().manual_seed(0)).tolist()
    with tempfile.TemporaryDirectory() as folder:
        decoder = make_decoder()
        print(f"{LAYERS} layers, {sum(p.numel() for p in decoder.parameters()) / 1e6:.2f} M parameters, float32")
        save_arrays(decoder, Path(folder) / "arrays.npz")
        engines = {"native": sys.executable, "llama.cpp": given.python}
        (Path(folder) / "ids.json").write_text(json.dumps(ids))
        jobs = {name: {"engine": name, "folder": folder} for name in engines}
        checks = {name: run_child(__file__, jobs[name], engines[name]) for name in engines}
        ours, theirs = checks["native"], checks["llama.cpp"]
        difference = abs(ours["likelihood"] - theirs["likelihood"])
        same = sum(a == b for a, b in zip(ours["greedy"], theirs["greedy"], strict=True))
        likelihoods = f"{ours['likelihood']:.4f}, {theirs['likelihood']:.4f}"
        print(f"log-likelihood of {CHECK_TOKENS} tokens: {likelihoods}; greedy ids: {same} of {CHECK_STEPS} equal")
        if not math.isfinite(difference) or difference > TOLERANCE * abs(ours["likelihood"]) or same < CHECK_STEPS:
            raise SystemExit("the engines disagree: nothing was timed")
        rounds = [
            {n: run_child(__file__, jobs[n] | {"lengths": lengths}, engines[n])["rows"] for n in engines}
            for _ in range(given.rounds)
        ]
    goals = []
    for key, what, scale, digits in (("prefill", "prefill, s", 1, 3), ("tpot", "TPOT at that depth, ms", 1e3, 2)):
        body = []
        for i, tokens in enumerate(lengths):
            native, other = ([one[name][i][key] for one in rounds] for name in engines)
            ratios = ratio_of(other, native)
            times = [spread(column, scale, digits) for column in (native, other)]
            body.append([short(tokens), *times, spread(ratios, digits=2, unit="x")])
            if goal := GOALS.get((key, tokens)):
                goals.append((f"{what.split()[0].strip(',')} {short(tokens)}", statistics.median(ratios), goal, "x"))
        print(f"\n{what}; least/median/largest of {given.rounds} rounds")
        print_table(["tokens", *engines, "llama.cpp / native"], body)
    held = [f"{max(one[name][-1]['peak'] for one in rounds) / MIB:.0f}" for name in engines]
    print(f"\npeak of the processes, MiB: native {held[0]}, llama.cpp {held[1]}\n")
    print_goals(goals)


if __name__ == "__main__":
    main()
