"""Hub ids: what is fetched, what is kept apart, one line for whatever goes wrong. No network: the package's function is replaced."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import huggingface_hub
import pytest
import torch
from huggingface_hub import errors

from kleval.models.checkpoint import files, hub, save
from kleval.models.decoder import Decoder
from kleval.models.registry import load_weights, resolve, weights_digest
from kleval.types import UsageError

NAME = "someone/Kimi-Linear-tiny"


@pytest.mark.parametrize(
    "name", ["moonshotai/Kimi-Linear-48B-A3B-Base", "a/b", "a/b@main", "a/b@refs/pr/1", "a.b/c_d-e.f"]
)
def test_a_hub_id_is_an_owner_and_a_name(name: str) -> None:
    assert hub.is_hub_id(name)


@pytest.mark.parametrize(
    "name", ["kimi-linear", "./a/b", "/a/b", "../a", "a/b/c", "~/a", "kimi-linear@nano", "a/b@", "-a/b"]
)
def test_anything_else_is_not(name: str) -> None:
    assert not hub.is_hub_id(name)


@pytest.fixture
def repository(tmp_path: Path, tiny_decoder: Callable[..., Decoder]) -> Path:
    """What lies on the hub, code and pickles included."""
    folder = tmp_path / "repository"
    save(tiny_decoder("kimi-linear").float(), folder)
    for name in ("modeling_kimi.py", "pytorch_model.bin", "README.md"):
        (folder / name).write_text("no")
    return folder


@pytest.fixture
def asked(repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """snapshot_download replaced by one that copies what the patterns allow into the folder of a commit."""
    calls: list[dict[str, Any]] = []

    def download(repo_id: str, revision: str | None = None, allow_patterns: Any = None) -> str:
        calls.append({"repo_id": repo_id, "revision": revision})
        commit = tmp_path / "snapshots" / ("c0ffee" if revision in (None, "c0ffee") else revision)
        commit.mkdir(parents=True, exist_ok=True)
        for pattern in allow_patterns:
            for file in repository.glob(pattern):
                shutil.copy(file, commit / file.name)
        return str(commit)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    return calls


def test_naming_a_model_fetches_its_small_files_and_loading_it_its_weights_of_the_same_commit(
    asked: list[dict[str, Any]],
) -> None:
    spec = resolve(NAME)
    assert spec.path is not None
    assert spec.architecture == "kimi-linear"
    assert {file.name for file in spec.path.iterdir()} == {"config.json"}
    assert isinstance(load_weights(spec), Decoder)
    assert {file.name for file in spec.path.iterdir()} == {"config.json", "model.safetensors"}
    assert asked == [{"repo_id": NAME, "revision": None}, {"repo_id": NAME, "revision": "c0ffee"}]


def test_a_revision_is_asked_for(asked: list[dict[str, Any]]) -> None:
    resolve(f"{NAME}@v1.0")
    assert asked == [{"repo_id": NAME, "revision": "v1.0"}]


def test_a_folder_of_the_same_name_comes_first(
    asked: list[dict[str, Any]], repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    repository.rename(repository.with_name("Kimi-Linear-tiny"))
    Path("someone").mkdir()
    Path("Kimi-Linear-tiny").rename(NAME)
    assert not resolve(NAME).hub
    assert asked == []


def answer(status: int) -> httpx2.Response:
    return httpx2.Response(status, request=httpx2.Request("GET", "https://hub.invalid"))


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (errors.RepositoryNotFoundError("404\n\nfor url", response=answer(404)), "does not exist or is private"),
        (errors.RevisionNotFoundError("404", response=answer(404)), "no such revision"),
        (errors.GatedRepoError("403", response=answer(403)), "gated"),
        (errors.LocalEntryNotFoundError("not cached"), "not in the local cache"),
        (errors.OfflineModeIsEnabled("HF_HUB_OFFLINE=1"), "not in the local cache"),
        (httpx2.ConnectError("no route\nto host"), "could not be fetched"),
        (ConnectionError("reset"), "could not be fetched"),
    ],
)
def test_whatever_goes_wrong_is_one_line(error: Exception, said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(UsageError, match=said) as raised:
        resolve(NAME)
    assert "\n" not in str(raised.value)
    assert NAME in str(raised.value)


def test_offline_nothing_is_waited_for(tmp_path: Path) -> None:
    """The package itself, with HF_HUB_OFFLINE and an empty cache, in a process of its own: it reads both when imported."""
    script = f"from kleval.models.registry import resolve\ntry: resolve({NAME!r})\nexcept Exception as e: print(type(e).__name__, e)"
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    command = [sys.executable, "-c", script]
    said = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60, check=True).stdout
    assert said.startswith("UsageError")
    assert "not in the local cache" in said


def test_the_digest_of_a_cached_file_is_its_name_in_the_cache(tmp_path: Path, repository: Path) -> None:
    sha = files.digest([repository / "model.safetensors"])
    blob = tmp_path / "blobs" / sha
    blob.parent.mkdir()
    blob.write_bytes(b"not read")
    (tmp_path / "model.safetensors").symlink_to(blob)
    assert files.digest([tmp_path / "model.safetensors"]) == sha


def test_the_digest_of_shards_changes_with_any_of_them(tmp_path: Path, tiny_decoder: Callable[..., Decoder]) -> None:
    decoder = tiny_decoder("kimi-linear").float()
    digests = set()
    for i in range(3):
        save(decoder, tmp_path / str(i), shard_bytes=20_000)
        digests.add(weights_digest(resolve(str(tmp_path / str(i)))))
        decoder.model.norm.weight.data += torch.tensor(i)
    assert len(digests) == 2


@pytest.mark.usefixtures("asked")
def test_a_repository_of_gguf_files_is_refused_with_what_runs_it(repository: Path) -> None:
    (repository / "config.json").unlink()
    with pytest.raises(
        UsageError, match=r"someone/tiny-GGUF holds GGUF files, .* \(llama-server -hf someone/tiny-GGUF\)"
    ):
        resolve("someone/tiny-GGUF")
