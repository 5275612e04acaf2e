import random

import numpy as np
import pytest

from kleval.tokenization import load_tokenizer
from kleval.train.loop import IGNORED
from kleval.train.retrieval import FORMS
from kleval.train.stream import MIXTURE, SHORTEST, Stream


@pytest.fixture(scope="module")
def stream():
    return Stream(load_tokenizer("nano-2"), seed=3, bank_size=500)


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


@pytest.mark.parametrize("kind", MIXTURE)
@pytest.mark.parametrize("room", [128, 512, 2048])
def test_no_sample_is_cut_and_every_one_asks_something(stream, kind, room):
    maker, _, least = MIXTURE[kind]
    if least > room:
        pytest.skip(f"{kind} takes {least} tokens at least")
    made = [stream.made(maker, random.Random(i), room) for i in range(8)]
    sizes = [len(sample[0]) for sample in made if sample is not None]
    assert len(sizes) > 4
    assert max(sizes) <= room + 1
    assert np.median(sizes) > 0.5 * room
    for ids, produced in (sample for sample in made if sample is not None):
        assert ids[-1] == stream.desk.eos_id
        assert produced[-1]
        assert produced[:-1].any()


@pytest.mark.parametrize("length", [SHORTEST, 128, 1024])
def test_every_row_has_answers(stream, length):
    batch = stream.batch(0, length, 4096 // length)
    assert (batch.labels != IGNORED).any(1).all()


def test_answers_weigh_the_root_of_their_number(stream):
    batch = stream.batch(2, 512, 4)
    wanted = batch.labels != IGNORED
    per_kind = [batch.weights[wanted & (batch.kinds == kind)] for kind in range(len(MIXTURE))]
    assert batch.weights[wanted].min() > 0
    assert all(w.max() <= 1 for w in per_kind if w.size)


def test_shares_are_of_one_whole():
    assert sum(share for _, share, _ in MIXTURE.values()) == pytest.approx(1.0)
    assert sum(FORMS.values()) == pytest.approx(1.0)
