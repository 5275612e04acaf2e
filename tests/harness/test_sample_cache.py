"""What comes from the disk is what would be made, whatever has happened to the file."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path

import pytest

from kleval.harness import sample_cache
from kleval.harness.makers import Cell, Makers
from kleval.harness.parts import Part
from kleval.harness.sample_cache import SampleCache
from kleval.tasks.registry import load_task
from kleval.tokenization import load_tokenizer
from kleval.types import ContextTooSmall, Sample, Tokenizer, Unfit


@pytest.fixture
def words() -> Tokenizer:
    return load_tokenizer("words")


@pytest.fixture
def cache(tmp_path: Path) -> SampleCache:
    return SampleCache(tmp_path / "samples")


class Counting:
    """A task of the registry that counts how many samples it made."""

    __module__ = "kleval.tasks.counting"

    def __init__(self, name: str = "ruler/niah_single_1") -> None:
        self._task, self.made = load_task(name), 0

    def __getattr__(self, name: str) -> object:
        return getattr(self._task, name)

    def samples(self, tokenizer: Tokenizer, ctx: int, n: int, seed: int) -> Iterator[Sample | Unfit]:
        for number, sample in enumerate(self._task.samples(tokenizer, ctx, n, seed)):
            self.made += 1
            if number == 1:
                yield Unfit(1, "as if it were too long", ctx + 1)
            yield sample


def test_samples_from_the_disk_equal_those_made(cache: SampleCache, words: Tokenizer) -> None:
    task = Counting()
    fresh = list(task.samples(words, 1024, 3, 1))
    first, second = (list(cache.samples(task, words, 1024, 3, 1)) for _ in range(2))
    assert first == second == fresh
    assert task.made == 2 * 3
    assert [type(made).__name__ for made in second] == ["Sample", "Unfit", "Sample", "Sample"]


def test_a_kept_file_has_the_permissions_of_an_ordinary_one(
    cache: SampleCache, words: Tokenizer, tmp_path: Path
) -> None:
    list(cache.samples(Counting(), words, 1024, 1, 1))
    (tmp_path / "ordinary").touch()
    assert cache.folder is not None
    assert {file.stat().st_mode for file in cache.folder.iterdir()} == {(tmp_path / "ordinary").stat().st_mode}


def test_fewer_samples_come_from_a_file_of_more_and_more_are_made_anew(cache: SampleCache, words: Tokenizer) -> None:
    task = Counting()
    more = list(cache.samples(task, words, 1024, 3, 1))
    made = task.made
    assert list(cache.samples(task, words, 1024, 1, 1)) == more[:1]
    assert task.made == made
    assert list(cache.samples(task, words, 1024, 4, 1))[:4] == more
    assert task.made > made


@pytest.mark.parametrize("change", ["ctx", "seed", "task", "tokenizer", "source"])
def test_nothing_is_shared_by_samples_that_differ(
    cache: SampleCache, words: Tokenizer, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def name(task: str = "ruler/niah_single_1", ctx: int = 1024, seed: int = 1, tokenizer: Tokenizer = words) -> str:
        return sample_cache.key(load_task(task), tokenizer, ctx, seed)

    before = name()
    assert before == name()
    if change == "source":
        monkeypatch.setattr(sample_cache, "_source_digest", lambda: "other")
        assert name() != before
        return
    changed = {"ctx": 2048, "seed": 2, "task": "ruler/vt", "tokenizer": _Other(words)}[change]
    assert name(**{change: changed}) != before


def test_a_file_that_only_long_samples_read_is_part_of_what_they_depend_on(tmp_path: Path, words: Tokenizer) -> None:
    def name() -> str:
        task = load_task("ruler/cwe", "official", data_dir=tmp_path)
        return sample_cache.key(task, words, 131072, 1)

    keys = [name()]
    for vocabulary in ('{"0": "a"}', '{"0": "other"}'):
        (tmp_path / "english_words.json").write_text(vocabulary)
        keys.append(name())
    assert len(set(keys)) == 3


class _Other:
    def __init__(self, words: Tokenizer) -> None:
        self.digest, self.chat_template_digest = "other", words.chat_template_digest


@pytest.mark.parametrize("damage", ["cut", "bytes", "prompt", "empty"])
def test_a_damaged_file_is_made_again(cache: SampleCache, words: Tokenizer, damage: str) -> None:
    task = Counting()
    fresh = list(cache.samples(task, words, 1024, 3, 1))
    assert cache.folder is not None
    [file] = cache.folder.glob("*.jsonl.gz")
    raw = file.read_bytes()
    if damage == "cut":
        file.write_bytes(raw[: len(raw) * 2 // 3])
    elif damage == "bytes":
        file.write_bytes(raw[:200] + b"\0\0\0\0" + raw[204:])
    elif damage == "prompt":
        file.write_bytes(gzip.compress(gzip.decompress(raw).replace(b"The grass is green", b"The grass is blue", 1)))
    else:
        file.write_bytes(b"")
    assert list(cache.samples(task, words, 1024, 3, 1)) == fresh
    assert list(cache.samples(task, words, 1024, 3, 1)) == fresh


def test_a_reader_that_leaves_early_keeps_nothing(cache: SampleCache, words: Tokenizer) -> None:
    samples = cache.samples(Counting(), words, 1024, 3, 1)
    next(samples)
    samples.close()
    assert cache.folder is not None
    assert list(cache.folder.parent.iterdir()) == []


def test_what_does_not_fit_is_told_and_not_kept(cache: SampleCache, words: Tokenizer) -> None:
    for _ in range(2):
        with pytest.raises(ContextTooSmall):
            list(cache.samples(Counting("ruler/cwe"), words, 64, 1, 1))


def test_a_folder_that_cannot_be_written_does_not_matter(tmp_path: Path, words: Tokenizer) -> None:
    (tmp_path / "file").write_text("")
    made = list(SampleCache(tmp_path / "file" / "samples").samples(Counting(), words, 1024, 2, 1))
    assert [type(one).__name__ for one in made] == ["Sample", "Unfit", "Sample"]


def test_the_files_used_longest_ago_go_first(tmp_path: Path, words: Tokenizer) -> None:
    task = Counting()
    cache = SampleCache(tmp_path, limit_bytes=1)
    list(cache.samples(task, words, 1024, 1, 1))
    assert list(tmp_path.iterdir()) == []
    cache = SampleCache(tmp_path)
    for seed in (1, 2):
        list(cache.samples(task, words, 1024, 1, seed))
    sample_cache._shrink(tmp_path, max(file.stat().st_size for file in tmp_path.iterdir()))
    assert not cache.has(task, words, 1024, 1, 1)
    assert cache.has(task, words, 1024, 1, 2)


def test_other_processes_make_the_same_samples(cache: SampleCache, words: Tokenizer) -> None:
    tasks = [load_task("ruler/niah_single_1"), load_task("ruler/vt"), load_task("ruler/cwe")]
    cells = [Cell(tasks[0], words, 1024), Cell(tasks[1], words, 1024), Cell(tasks[2], words, 64)]
    with Makers(cache, n=2, seed=5, workers=1) as makers:
        makers.prepare(cells)
        for task, tokenizer, ctx, _ in cells[:2]:
            assert list(makers.samples(task, tokenizer, ctx)) == list(task.samples(tokenizer, ctx, 2, 5))
            assert cache.has(task, tokenizer, ctx, 2, 5)
        with pytest.raises(ContextTooSmall):
            list(makers.samples(*cells[2]))


def test_a_part_that_is_made_in_order_is_made_once(cache: SampleCache, words: Tokenizer) -> None:
    task = Counting()
    task.samples_at = lambda *given: None  # type: ignore[attr-defined]
    part = Part(1, 2)
    first = list(cache.samples(task, words, 1024, 4, 1, part))
    made = task.made
    assert list(cache.samples(task, words, 1024, 4, 1, part)) == first
    assert task.made == made > 0
    assert [one for one in first if isinstance(one, Sample)] == [
        one for one in part.taken(task.samples(words, 1024, 4, 1), 4) if isinstance(one, Sample)
    ]
