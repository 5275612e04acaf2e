"""The official lengths."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from kleval.harness import sample_cache
from kleval.tasks.mrcr import official as bins
from kleval.tasks.registry import load_task
from kleval.types import Tokenizer


@pytest.mark.parametrize(
    ("tokens", "name"),
    [
        (4095, "outside"),
        (4096, "4k-8k"),
        (8192, "4k-8k"),
        (8193, "8k-16k"),
        (16384, "8k-16k"),
        (131072, "64k-128k"),
        (131073, "128k-256k"),
        (1048576, "512k-1m"),
        (1048577, "outside"),
    ],
)
def test_the_first_bin_holds_both_ends_and_the_others_their_upper_one(tokens: int, name: str) -> None:
    assert bins.bin_of(tokens) == name


def test_every_bin_has_a_name() -> None:
    assert len(bins.NAMES) == len(bins.EDGES) - 1 == 8


def test_nothing_is_downloaded_where_the_vocabulary_is_not_at_hand(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr("tiktoken.get_encoding", lambda name: pytest.fail("asked for an encoding"))
    assert bins.counter() is None
    assert not list(tmp_path.iterdir())


def test_a_cached_vocabulary_is_found_under_tiktokens_own_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked = []
    monkeypatch.setattr("kleval.tokenization.load_tokenizer", lambda name: asked.append(name))
    monkeypatch.setenv("TIKTOKEN_CACHE_DIR", str(tmp_path))
    (tmp_path / "fb374d419588a4632f3f557e76b4b70aebbca790").write_bytes(b"x")
    bins.counter()
    assert asked == ["tiktoken:o200k_base"]
    bins._load.cache_clear()


def test_kept_samples_are_of_one_counter_of_bins(
    write_mrcr: Callable[..., object],
    mrcr_rows: list[dict[str, object]],
    tmp_path: Path,
    words: Tokenizer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write_mrcr(mrcr_rows)
    keys = set()
    for vocabulary in (None, tmp_path / "o200k"):
        monkeypatch.setattr(bins, "vocabulary", lambda found=vocabulary: found)
        keys.add(sample_cache.key(load_task("mrcr/2needle", "official", data_dir=tmp_path), words, 4096, 1))
    assert len(keys) == 2
