"""Nothing that training is made of can occur in an evaluation sample."""

import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kleval.models.registry import resolve
from kleval.tasks import prose
from kleval.tasks.registry import expand, load_task
from kleval.tokenization import HFTokenizer
from kleval.train import material
from kleval.train.nano import nano_folder
from kleval.train.stream import Stream
from kleval.types import ContextTooSmall

seeds = st.integers(0, 2**32)


@given(seeds)
def test_numbers_never_have_the_digits_of_an_evaluation_value(seed):
    number = material.number(random.Random(seed))
    assert material.is_training_number(number)
    assert len(number) not in (5, 7)


@given(seeds)
def test_uuids_are_never_version_4(seed):
    assert material.is_training_uuid(material.uuid(random.Random(seed)))
    official = material.uuid(random.Random(seed))
    assert not material.is_training_uuid(official[:14] + "4" + official[15:])


@given(seeds)
def test_names_and_coded_words_have_other_lengths(seed):
    rng = random.Random(seed)
    assert material.is_training_variable(material.variable(rng))
    assert material.is_training_coded_word(material.coded_word(rng))


@pytest.fixture(scope="module")
def tokenizer():
    return HFTokenizer.from_file(nano_folder() / "tokenizer.json", name="nano")


@pytest.fixture(scope="module")
def stream(tokenizer):
    return Stream(tokenizer, seed=0, bank_size=2000)


def test_list_words_are_never_made(stream):
    rng = random.Random(0)
    assert not material.listed_words() & {stream.words.word(rng) for _ in range(5000)}


@pytest.fixture(scope="module")
def evaluation_texts(tokenizer):
    texts = []
    for task_id in expand(["ruler"]):
        try:
            texts += [s.prompt + s.answer_prefix for s in load_task(task_id).samples(tokenizer, 4096, 3, 42)]
        except ContextTooSmall:
            continue
    assert len(texts) >= 30
    return texts


def test_no_training_sentence_stands_in_an_evaluation_sample(stream, evaluation_texts):
    everything = "\n".join(evaluation_texts)
    assert not [s for s in stream.bank if s in everything]
    assert all(prose.belongs_to(s) == "train" for s in stream.bank)


def test_no_evaluation_value_could_have_been_a_training_value(evaluation_texts):
    for text in evaluation_texts:
        found = re.findall(r"(?:is: |VAR [A-Z]+ = )([0-9a-f][0-9a-f-]+)", text)
        assert not [v for v in found if material.is_training_number(v) or material.is_training_uuid(v)]


def test_no_evaluation_name_could_have_been_a_training_name(evaluation_texts):
    variables = {v for text in evaluation_texts for v in re.findall(r"VAR ([A-Z]+) =", text)}
    coded = {w for text in evaluation_texts if "coded text" in text for w in re.findall(r"\.\.\. ([a-z]+) ", text)}
    assert len(variables) > 10
    assert len(coded) > 10
    assert not [v for v in variables if material.is_training_variable(v)]
    assert not [w for w in coded if material.is_training_coded_word(w)]


def test_no_training_key_is_an_evaluation_key(stream, evaluation_texts):
    evaluated = {k for text in evaluation_texts for k in re.findall(r"for (\S+) is: ", text)}
    rng = random.Random(1)
    trained = {stream.words.key(rng) for _ in range(5000)}
    assert len(evaluated) > 50
    assert not evaluated & trained


def test_shipped_models_are_the_ones_these_tests_speak_of():
    assert resolve("kimi-linear").path == nano_folder() / "kimi-linear"
