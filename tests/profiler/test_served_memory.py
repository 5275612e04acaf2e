"""Memory of an engine: what it says, what the formula says, what its processes hold, and why they differ."""

from __future__ import annotations

import re
import socket
from pathlib import Path
from typing import Any

import pytest

from kleval.backends.spec import BackendSpec
from kleval.cli.profile_table import print_rows
from kleval.profiler.served import ServedSpec
from kleval.profiler.served.engine_memory import (
    EngineMemory,
    Watched,
    by_formula,
    listening,
    of_log,
    of_metrics,
    of_props,
    of_vllm,
)
from kleval.profiler.served.job import profile_served
from kleval.store import RunStore
from kleval.tables.cost_rows import served_rows
from kleval.tables.costs import read_profile
from kleval.types import UsageError

# what real engines said of a small random Qwen3-Next: six Gated DeltaNet layers, two of attention, bfloat16
ENGINES = Path(__file__).parents[1] / "data" / "engines"
VLLM_LOG, METRICS = ENGINES / "vllm_0.32_cpu_qwen3_next.log", ENGINES / "vllm_0.32_cpu_qwen3_next.metrics"
ON_GPU = """
INFO Available KV cache memory: 2.00 GiB
INFO GPU KV cache size: 9,600 tokens, Maximum concurrency for 4,096 tokens per request: 2.50x
"""


def test_vllm_tells_blocks_sequences_and_why_they_are_large() -> None:
    values, said = of_metrics(METRICS.read_text())
    assert values.pop("engine_sequences") == pytest.approx(
        204 / 19
    )  # 13 blocks of rows, two states of each of three groups
    assert values == {
        "engine_block_tokens": 640,
        "engine_blocks": 204,
        "engine_pool_tokens": 87956,
        "engine_pool_bytes": 1 << 26,
        "engine_sequence_tokens": 8192,
    }
    assert "pins its size" in said["page"]
    assert "mamba_cache_mode align" in said["snapshots"]
    assert "no 130,560 tokens of context" in said["groups"]
    assert of_metrics("nothing of it\n") == ({}, {})


@pytest.mark.parametrize("odd", ["inf", "nan", "-inf", "many"])
def test_a_figure_that_is_no_number_is_none(odd: str) -> None:
    text = re.sub(r'num_gpu_blocks="[^"]*"', f'num_gpu_blocks="{odd}"', METRICS.read_text())
    assert f'"{odd}"' in text
    assert of_metrics(text)[0].get("engine_blocks") is None


def test_the_state_of_a_page_is_told_where_the_engine_has_it() -> None:
    _, said = of_vllm({"block_size": 640, "mamba_page_size_padded": 163840})
    assert "160.0 KiB per layer" in said["page"]


def test_vllms_log_tells_the_pool(tmp_path: Path) -> None:
    values, said = of_log(VLLM_LOG)
    assert (values["engine_pool_tokens"], values["engine_block_tokens"]) == (87956, 640)
    assert (values["engine_sequence_tokens"], values["engine_sequences"]) == (8192, 10.74)
    assert values["engine_pool_bytes"] == int(0.06 * (1 << 30))
    assert set(said) == {"page", "padded"}
    (tmp_path / "gpu.log").write_text(ON_GPU)
    values, said = of_log(tmp_path / "gpu.log")
    assert (values["engine_pool_bytes"], values["engine_sequences"], said) == (2 << 30, 2.5, {})
    (tmp_path / "other.log").write_text("hello\n")
    with pytest.raises(UsageError, match="no line about a cache"):
        of_log(tmp_path / "other.log")


@pytest.mark.parametrize("lines", [1, 4])
def test_a_pool_over_several_gpus_is_that_of_all(tmp_path: Path, lines: int) -> None:
    """vLLM names the bytes of one worker, once per node or once per worker, and the tokens and sequences of all."""
    config = "Initializing a V1 LLM engine with config: tensor_parallel_size=2, pipeline_parallel_size=2, data_parallel_size=1,"
    of_each, of_all = ON_GPU.strip().splitlines()
    (tmp_path / "gpu.log").write_text("\n".join([config, *([of_each] * lines), of_all]))
    memory = EngineMemory.of({}, tmp_path / "gpu.log", (None,), (1024,))
    assert memory.engine["engine_pool_bytes"] == 8 << 30
    assert memory.engine["engine_sequence_bytes"] == int((8 << 30) / 2.5)
    told = {"cache_size_tokens": 9600, "kv_cache_memory_bytes": 2 << 30, "kv_cache_max_concurrency": 2.5}
    for said, log in (({"cache": told, "workers": 4}, None), ({"cache": told}, tmp_path / "gpu.log")):
        assert EngineMemory.of(said, log, (None,), (1024,)).engine["engine_pool_bytes"] == 8 << 30


def test_replicas_of_an_engine_hold_together_what_each_holds(tmp_path: Path) -> None:
    one = METRICS.read_text()
    values, _ = of_metrics(one + one.replace('engine="0"', 'engine="1"'))
    assert (values["engine_blocks"], values["engine_pool_tokens"]) == (2 * 204, 2 * 87956)
    assert (values["engine_sequences"], values["engine_sequence_tokens"]) == (pytest.approx(2 * 204 / 19), 8192)
    pool, tokens = ON_GPU.strip().splitlines()
    lines = [f"(EngineCore_DP{rank} pid={rank}) {line}" for rank in range(2) for line in (pool, tokens)]
    (tmp_path / "gpu.log").write_text("\n".join(lines))
    values, _ = of_log(tmp_path / "gpu.log")
    assert (values["engine_pool_bytes"], values["engine_sequences"], values["engine_pool_tokens"]) == (
        4 << 30,
        5,
        19200,
    )


def test_vllms_log_of_several_starts_tells_the_last(tmp_path: Path) -> None:
    start = "(APIServer pid=1) INFO [utils.py:1] vLLM API server version 0.32.0\n"
    (tmp_path / "both.log").write_text(start + VLLM_LOG.read_text() + start + ON_GPU)
    values, said = of_log(tmp_path / "both.log")
    assert (values["engine_sequence_tokens"], "engine_block_tokens" in values, said) == (4096, False, {})


def test_what_a_server_says_now_goes_before_its_log() -> None:
    memory = EngineMemory.of({"metrics": METRICS.read_text()}, VLLM_LOG, (None,), (1024,))
    assert memory.engine["engine_pool_bytes"] == 1 << 26
    assert memory.engine["engine_sequence_bytes"] == int((1 << 26) * 19 / 204)


def test_llamacpps_log_tells_rows_and_states_apart() -> None:
    values, said = of_log(ENGINES / "llama_cpp_qwen3next_two_streams.log")
    assert (values["engine_pool_tokens"], values["engine_sequence_tokens"]) == (16384, 8192)
    assert values["engine_sequence_bytes"] == int(4.82 * (1 << 20))  # half of both pools
    assert "llama_memory_recurrent 1.64 MiB" in said["pools"]
    assert "32 snapshots" in said["snapshots"]
    assert "8,192 MiB" in said["prompts"]


def test_slots_that_share_their_cells_are_no_larger_pool() -> None:
    values, _ = of_log(ENGINES / "llama_cpp_qwen3next_one_stream.log")
    assert (values["engine_pool_tokens"], values["engine_sequence_tokens"]) == (8192, 8192)
    assert values["engine_sequence_bytes"] == int((4 + 3.28 / 4) * (1 << 20))
    slots = {"total_slots": 4, "default_generation_settings": {"n_ctx": 8192}}  # of the same server's /props
    assert of_props(slots) == {"engine_sequence_tokens": 8192}
    assert of_props({"total_slots": "4"}) == {}


def test_a_log_of_several_starts_tells_the_last(tmp_path: Path) -> None:
    starts = [(ENGINES / f"llama_cpp_qwen3next_{n}.log").read_text() for n in ("two_streams", "one_stream")]
    (tmp_path / "both.log").write_text("".join(starts))
    assert of_log(tmp_path / "both.log") == of_log(ENGINES / "llama_cpp_qwen3next_one_stream.log")


def test_the_formula_says_what_halved_rows_gain() -> None:
    known, said = by_formula(["no-such-model", "kimi-linear@48b-a3b"], [4096])
    assert known[4096]["state_bytes"] == sum(
        known[4096][f"{part}_bytes"] or 0 for part in ("latent", "recurrent", "conv")
    )
    assert "1.09× at 1k and 1.75× at 32k" in said[0]
    assert by_formula([None, "no-such-model"], [4096]) == ({}, [])


def test_a_process_is_found_by_the_port_on_which_it_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as socket_:
        found = listening(socket_.getsockname()[1])
    assert (Watched(found).values()["server_rss_bytes"] or 0) > 1 << 20
    assert Watched(()).values() == {}


def test_a_profile_has_the_three_side_by_side(
    served_server: Any, manner: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manner.metrics = METRICS.read_text()
    manner.model = "kimi-linear@nano"
    with served_server.serving(manner) as url:
        engine = BackendSpec(model="kimi-linear@nano", backend="openai", base_url=url, request_timeout=10)
        out = tmp_path / "run"
        spec = ServedSpec(engine=engine, ctxs=(64,), decode_tokens=4, repeats=1, out=out, engine_log=VLLM_LOG)
        profile_served(spec)
    store = RunStore.open(tmp_path / "run")
    (row,) = rows = served_rows(read_profile(store))
    assert (row["engine_pool_bytes"], row["engine_block_tokens"]) == (1 << 26, 640)
    assert row["formula_bytes"] > 0
    assert row["server_rss_bytes"] > 1 << 20
    assert any("of the formula's" in text for text in store.manifest["caveats"])
    print_rows(rows, "table")
    assert "6.0 MiB at 8k" in capsys.readouterr().out
