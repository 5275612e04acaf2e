import hashlib

import pytest

from kleval.tasks import articles, prose


@pytest.fixture(scope="module")
def corpus():
    return articles.corpus(200, 5)


def test_the_corpus_is_the_same_on_every_machine():
    text = "\n".join(a.text for a in articles.corpus(40, 0))
    assert (
        hashlib.sha256(text.encode()).hexdigest() == "091f02fdf1a40291e7c1486dc08ee844c7d9fcc2686dfcd368c097f3f4e85c6e"
    )


def test_titles_are_unique_and_belong_to_their_split(corpus):
    titles = [a.title for a in corpus]
    assert len(set(titles)) == len(titles)
    assert {prose.belongs_to(name) for title in titles for name in title.split()} == {"eval"}


def test_splits_share_no_answer(corpus):
    own, others = ({fact.answers[0] for a in c for fact in a.facts} for c in (corpus, articles.corpus(200, 5, "train")))
    assert not own & others


@pytest.mark.parametrize("hops", [1, 2])
def test_questions_are_distinct_and_answered_by_their_gold_articles(corpus, hops):
    questions = articles.questions(corpus, 0, hops)
    assert len(questions) >= 500
    assert len({q.question for q in questions}) == len(questions)
    for question in questions:
        assert len(question.gold) == hops
        fact = corpus[question.gold[-1]].facts[question.fact]
        assert question.answers == fact.answers
        assert fact.statement in corpus[question.gold[-1]].text
        assert question.answers[0] in fact.statement
        assert corpus[question.gold[0]].title in question.question


def test_two_hops_need_both_articles(corpus):
    for question in articles.questions(corpus, 0, 2):
        first, second = (corpus[g] for g in question.gold)
        assert second.title in first.facts[0].statement
        assert second.title not in question.question


def test_no_other_article_states_the_fact_of_a_subject(corpus):
    for article in corpus[:40]:
        for fact in article.facts:
            assert [a.title for a in corpus if fact.statement in a.text] == [article.title]


def test_each_paragraph_answers_every_second_question_of_its_article(corpus):
    for article in corpus:
        for part, text in enumerate(article.paragraphs):
            assert all(fact.answers[0] in text for fact in article.facts[part::2])
