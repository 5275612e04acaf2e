"""Memory of an engine: what it says, what the formula says, what its processes hold, and why they differ."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import pytest

from kleval.backends.spec import BackendSpec
from kleval.cli.profile_table import print_rows
from kleval.profiler.served import ServedSpec
from kleval.profiler.served.engine_memory import Watched, by_formula, of_log, of_metrics, of_props
from kleval.profiler.served.job import profile_served
from kleval.store import RunStore
from kleval.tables.cost_rows import served_rows
from kleval.tables.costs import read_profile
from kleval.types import UsageError

METRICS = (
    'vllm:cache_config_info{block_size="384",num_gpu_blocks="100",kv_cache_size_tokens="9600",'
    'mamba_page_size_padded="1048576",mamba_cache_mode="align",kv_cache_memory_bytes="None",engine="0"} 1.0\n'
)
VLLM_LOG = """
INFO Setting attention block size to 384 tokens to ensure that attention page size is >= mamba page size.
INFO Padding mamba page size by 1.05% to ensure that mamba page size and attention page size are exactly equal.
INFO Available KV cache memory: 2.00 GiB
INFO GPU KV cache size: 9,600 tokens, Maximum concurrency for 4,096 tokens per request: 2.50x
"""
LLAMA_LOG = """
llama_kv_cache: size =   12.00 MiB (  4096 cells,   2 layers,  1/1 seqs), K (f16):    6.00 MiB, V (f16):    6.00 MiB
llama_memory_recurrent: size =    3.50 MiB (     1 cells,  8 layers,  1 seqs), R (f32):    0.50 MiB, S (f32):    3.00 MiB
"""


def test_vllm_tells_blocks_and_why_they_are_large() -> None:
    values, said = of_metrics(METRICS)
    assert values == {"engine_block_tokens": 384, "engine_blocks": 100, "engine_pool_tokens": 9600}
    assert "pins its size" in said[0]
    assert "mamba_cache_mode align" in said[1]
    assert "no 38,400 tokens of context" in said[2]
    assert of_metrics("nothing of it\n") == ({}, [])


def test_logs_tell_the_pools(tmp_path: Path) -> None:
    (tmp_path / "vllm.log").write_text(VLLM_LOG)
    values, said = of_log(tmp_path / "vllm.log")
    assert values["engine_pool_bytes"] == 2 << 30
    assert (values["engine_sequence_tokens"], values["engine_sequence_bytes"]) == (4096, int((2 << 30) / 2.5))
    assert (values["engine_pool_tokens"], len(said)) == (9600, 2)
    (tmp_path / "llama.log").write_text(LLAMA_LOG)
    values, said = of_log(tmp_path / "llama.log")
    assert values == {"engine_pool_bytes": int(15.5 * (1 << 20))}
    assert "llama_memory_recurrent 3.50 MiB" in said[0]
    (tmp_path / "other.log").write_text("hello\n")
    with pytest.raises(UsageError, match="no line about a cache"):
        of_log(tmp_path / "other.log")


def test_llamacpp_tells_its_slots() -> None:
    assert of_props({"total_slots": 4, "default_generation_settings": {"n_ctx": 4096}}) == {"engine_pool_tokens": 16384}
    assert of_props({"total_slots": "4"}) == {}


def test_the_formula_says_what_halved_rows_gain() -> None:
    known, said = by_formula(["no-such-model", "kimi-linear@48b-a3b"], [4096])
    assert known[4096]["state_bytes"] == sum(
        known[4096][f"{part}_bytes"] or 0 for part in ("latent", "recurrent", "conv")
    )
    assert "1.09× at 1k and 1.75× at 32k" in said[0]
    assert by_formula([None, "no-such-model"], [4096]) == ({}, [])


def test_a_process_is_found_by_the_port_on_which_it_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        values = Watched(listening.getsockname()[1]).values()
    assert (values["server_rss_bytes"] or 0) > 1 << 20
    assert Watched(None).values() == {}


def test_a_profile_has_the_three_side_by_side(
    served_server: Any, manner: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manner.metrics = METRICS
    (tmp_path / "server.log").write_text(VLLM_LOG)
    manner.model = "kimi-linear@nano"
    with served_server.serving(manner) as url:
        engine = BackendSpec(model="kimi-linear@nano", backend="openai", base_url=url, request_timeout=10)
        log = tmp_path / "server.log"
        spec = ServedSpec(engine=engine, ctxs=(64,), decode_tokens=4, repeats=1, out=tmp_path / "run", engine_log=log)
        profile_served(spec)
    store = RunStore.open(tmp_path / "run")
    (row,) = rows = served_rows(read_profile(store))
    assert (row["engine_pool_bytes"], row["engine_block_tokens"]) == (2 << 30, 384)
    assert row["formula_bytes"] > 0
    assert row["server_rss_bytes"] > 1 << 20
    assert any("of the formula's" in text for text in store.manifest["caveats"])
    print_rows(rows, "table")
    assert "pool tokens" in capsys.readouterr().out
