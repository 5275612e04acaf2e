import random

import numpy as np
import pytest

from kleval.tokenization import HFTokenizer
from kleval.train.nano import nano_folder
from kleval.train.stream import IGNORED, MIXTURE, SHORTEST, Stream


@pytest.fixture(scope="module")
def stream():
    return Stream(HFTokenizer.from_file(nano_folder() / "tokenizer.json", name="nano"), seed=3, bank_size=500)


def test_a_batch_depends_on_seed_and_index_alone(stream):
    first = stream.batch(7, 256, 8)
    stream.batch(8, 128, 4)
    again = stream.batch(7, 256, 8)
    assert np.array_equal(first.ids, again.ids)
    assert np.array_equal(first.labels, again.labels)


def test_labels_are_the_next_tokens(stream):
    batch = stream.batch(1, 256, 16)
    inner = batch.labels[:, :-1]
    asked = inner != IGNORED
    assert asked.any()
    assert np.array_equal(inner[asked], batch.ids[:, 1:][asked])


@pytest.mark.parametrize("kind", sorted(MIXTURE))
@pytest.mark.parametrize("length", [128, 1024])
def test_every_kind_fills_its_length_and_asks_something(stream, kind, length):
    length = max(length, SHORTEST.get(kind, 0))
    rng = random.Random(0)
    sizes = []
    for _ in range(20):
        segments = stream.makers[kind](rng, length)
        sizes.append(sum(len(ids) for ids, _ in segments))
        assert any(flag and ids for ids, flag in segments)
    assert 0.5 * length < np.median(sizes) <= length + 1
