import random

import numpy as np
import pytest

from kleval.tokenization import HFTokenizer
from kleval.train.nano import nano_folder
from kleval.train.stream import IGNORED, MIXTURE, Stream


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
def test_every_kind_fills_its_length_and_asks_something(stream, kind):
    rng = random.Random(0)
    sizes = []
    for _ in range(20):
        segments = stream.makers[kind](rng, 512)
        sizes.append(sum(len(ids) for ids, _ in segments))
        assert any(flag and ids for ids, flag in segments)
    assert 0.7 * 512 < np.median(sizes) <= 513


@pytest.mark.parametrize("length", [128, 256, 512, 1024])
def test_most_rows_keep_an_answer_within_their_length(stream, length):
    batches = [stream.batch(i, length, 32) for i in range(4)]
    asked = np.concatenate([(b.labels != IGNORED).any(1) for b in batches])
    assert asked.mean() > 0.6
