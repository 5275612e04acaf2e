"""Nothing that training is made of can occur in an evaluation sample."""

import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kleval import suites
from kleval.tasks.mrcr.conversations import EVALUATED
from kleval.tasks.prose import split_sentences
from kleval.tasks.registry import expand, load_task
from kleval.tasks.repoqa import stdlib
from kleval.tokenization import load_tokenizer
from kleval.train import material, reading, templates
from kleval.train.stream import MIXTURE, Stream
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
    return load_tokenizer("nano-2")


@pytest.fixture(scope="module")
def stream(tokenizer):
    return Stream(tokenizer, seed=0, bank_size=2000)


@pytest.fixture(scope="module")
def evaluation_texts(tokenizer):
    """Prompts and references of every task of the builtin long suite; RepoQA's functions have a test of their own."""
    texts = {}
    for task_id in expand(list(suites.suite("long").tasks)):
        for ctx in (1024, 2048) if task_id != "repoqa/snf" else ():
            try:
                samples = list(load_task(task_id).samples(tokenizer, ctx, 2, 42))
            except ContextTooSmall:
                continue
            texts[task_id, ctx] = "\n".join(
                [tokenizer.render(s.prompt, s.answer_prefix) + "\n" + "\n".join(s.references) for s in samples]
            )
    assert len(texts) >= 40
    return texts


def _records(text):
    """Sentences and lines of three words and more, without what the templates say."""
    for phrase in templates.phrases():
        text = text.replace(phrase, "\n")
    return {s for line in text.splitlines() for s in split_sentences(line) if len(s.split()) > 2}


# Frames of the tasks' generators, which training shares with evaluation as it shares the templates.
SHARED = re.compile(
    r"What am I\?|Raise your glasses!|Words of a language in which .*|Notices, one per town\.|At last it prints item\."
    r'|if __name__ == "__main__":|made = dict\(item\)|(?:It begins with )?item = \{"name": "\w+"\}.*|if \w+ > \d+:|@@ .* @@'
)


@pytest.mark.parametrize("kind", MIXTURE)
def test_no_sentence_or_line_of_training_stands_in_an_evaluation_sample(kind, stream, tokenizer, evaluation_texts):
    evaluated = {record for text in evaluation_texts.values() for record in _records(text)}
    made = (stream.made(MIXTURE[kind][0], random.Random(i), 1024) for i in range(6))
    trained = [_records(tokenizer.decode(sample[0][:-1].tolist())) for sample in made if sample is not None]
    assert len(trained) > 3
    assert [r for r in set().union(*trained) & evaluated if not SHARED.fullmatch(r)] == []


def test_list_words_are_never_made(stream):
    rng = random.Random(0)
    assert not material.listed_words() & {stream.desk.words.word(rng) for _ in range(5000)}


def test_no_evaluation_value_could_have_been_a_training_value(evaluation_texts):
    for text in evaluation_texts.values():
        found = re.findall(r"(?:is: |VAR [A-Z]+ = )([0-9a-f][0-9a-f-]+)", text)
        assert not [v for v in found if material.is_training_number(v) or material.is_training_uuid(v)]


def test_no_evaluation_name_could_have_been_a_training_name(evaluation_texts):
    variables = set(re.findall(r"VAR ([A-Z]+) =", evaluation_texts["ruler/vt", 2048]))
    coded = set(re.findall(r"\.\.\. ([a-z]+) ", evaluation_texts["ruler/fwe", 2048]))
    invented = set(re.findall(r"def (\w+)\(|([A-Z]\w+) (?:gave|taught) ", evaluation_texts["lca/lib", 2048]))
    titles = set(re.findall(r"(\w+) (?:gave|taught) ", evaluation_texts["longbench2/mcq", 2048]))
    assert all(len(found) > 5 for found in (variables, coded, invented, titles))
    assert not [v for v in variables if material.is_training_variable(v)]
    assert not [w for w in coded if material.is_training_coded_word(w)]
    assert not [n for n in (*(a for a, _ in invented), *titles) if material.is_training_name(n)]


def test_no_training_key_is_an_evaluation_key(stream, evaluation_texts):
    evaluated = {k for text in evaluation_texts.values() for k in re.findall(r"for (\S+) is: ", text)}
    rng = random.Random(1)
    assert len(evaluated) > 50
    assert not evaluated & {stream.desk.words.key(rng) for _ in range(5000)}


def test_half_of_the_noise_is_of_words_that_no_text_has(stream):
    lines = [stream.desk.noise(random.Random(i), 100)[:1] for i in range(200)]
    known = {word for sentence in stream.desk.bank for word in re.findall(r"\w+", sentence)}
    strange = [line for line in lines if line and not known.issuperset(re.findall(r"\w+", line[0]))]
    assert 60 < len(strange) < 140


def test_no_function_to_be_found_is_one_of_the_standard_library():
    rng = random.Random(0)
    names = {re.match(r"def (\w+)", reading.described_function(rng)[1])[1] for _ in range(2000)}
    root = stdlib._root()
    defined = {n for path in stdlib._paths(root) for n in re.findall(rb"def (\w+)", (root / path).read_bytes())}
    assert len(defined) > 5000
    assert not names & {n.decode() for n in defined}


def test_subjects_and_prefixes_of_conversations_are_of_another_form():
    assert not set(material.TOPICS) & set(EVALUATED.topics)
    assert EVALUATED.prefix_chars not in material.PREFIX_CHARS
