"""Metrics on hand-worked cases, and laws that hold for any text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evals.errors import MetricError
from evals.metrics.answers import (
    contains_answer,
    exact_match,
    normalise_answer,
    strip_citations,
    style_match,
    token_f1,
)
from evals.metrics.citations import (
    abstention,
    citation_precision,
    citation_recall,
    only_gold_citation,
    over_refusal,
    right_citation,
)
from evals.metrics.retrieval import mrr, ndcg_at_k, recall_at_k, score_run
from evals.metrics.score import Score, find_metric

TEXTS = st.text(alphabet="ab the,.[1] x", max_size=20)


def test_squad_normalisation_drops_case_articles_punctuation_and_spaces():
    assert normalise_answer("  The  U.S. Army's, an a ") == "us armys"


def test_citation_markers_are_removed_with_the_space_before_them():
    assert strip_citations("14 days [1], or 20 [2, 3].") == "14 days, or 20."


def test_exact_match_ignores_markers_and_takes_any_accepted_answer():
    assert exact_match("The 14 days. [1]", ["two weeks", "14 days"]) == Score(1.0)
    assert exact_match("14 days long", ["14 days"]) == Score(0.0)


@pytest.mark.parametrize(
    ("text", "answers", "expected"),
    [
        ("14 days [1]", ["14 days"], 1.0),
        ("within 14 days", ["14 days"], 0.8),  # precision 2/3, recall 1
        ("days", ["14 days"], 2 / 3),
        ("days days days", ["14 days"], 0.4),  # a repeated word counts once: 1/3 and 1/2
        ("nothing", ["14 days"], 0.0),
        ("", ["14 days"], 0.0),
        ("the", ["a"], 1.0),
    ],
)
def test_token_f1_on_hand_worked_cases(text, answers, expected):
    assert token_f1(text, answers).value == pytest.approx(expected)


def test_contains_answer_wants_whole_words():
    assert contains_answer("It takes 14 days [1].", ["14 days"]) == Score(1.0)
    assert contains_answer("It takes 114 days.", ["14 days"]) == Score(0.0)
    assert contains_answer("anything", ["the"]) == Score(0.0)


def test_no_accepted_answer_is_unscored_not_zero():
    for metric in (exact_match, token_f1, contains_answer):
        assert not metric("text", []).scored


@given(TEXTS, st.lists(TEXTS, min_size=1, max_size=3))
def test_exact_match_never_exceeds_f1_and_more_answers_never_hurt(text, answers):
    em, f1 = exact_match(text, answers).value, token_f1(text, answers).value
    assert em is not None
    assert f1 is not None
    assert 0 <= em <= f1 <= 1
    assert f1 >= (token_f1(text, answers[:1]).value or 0)


@given(TEXTS, TEXTS)
def test_token_f1_is_symmetric(a, b):
    assert token_f1(a, [b]).value == pytest.approx(token_f1(b, [a]).value)


def test_style_match_takes_a_pattern_or_a_callable():
    assert style_match("Thanks.\nFair winds!", r"Fair winds!$") == Score(1.0)
    assert style_match("Thanks.", lambda text: text.endswith("!")) == Score(0.0)
    with pytest.raises(MetricError, match="not valid"):
        style_match("x", "(")


def test_citation_metrics_on_hand_worked_cases():
    gold = ("a", "b")
    assert citation_precision(("a", "x", "a"), gold) == Score(0.5)
    assert citation_recall(("a", "x"), gold) == Score(0.5)
    assert right_citation(("x", "a"), gold) == Score(1.0)
    assert only_gold_citation(("x", "a"), gold) == Score(0.0)
    assert only_gold_citation(("a",), gold) == Score(1.0)


def test_citing_nothing_has_no_precision_but_zero_recall():
    assert not citation_precision((), ("a",)).scored
    assert citation_recall((), ("a",)) == Score(0.0)
    assert right_citation((), ("a",)) == Score(0.0)
    assert only_gold_citation((), ("a",)) == Score(0.0)


def test_citations_without_gold_are_unscored():
    for metric in (citation_precision, citation_recall, right_citation, only_gold_citation):
        assert not metric(("a",), ()).scored


def test_abstention_and_over_refusal_score_disjoint_questions():
    assert abstention(True, answerable=False) == Score(1.0)
    assert over_refusal(True, answerable=True) == Score(1.0)
    assert not abstention(True, answerable=True).scored
    assert not over_refusal(True, answerable=False).scored


def test_retrieval_metrics_on_a_hand_worked_ranking():
    ranked = ["x", "a", "a", "y", "b"]  # the repeated a counts once
    assert recall_at_k(["a", "b"], ranked, 2) == Score(0.5)
    assert recall_at_k(["a", "b"], ranked, 4) == Score(1.0)
    assert mrr(["a", "b"], ranked) == Score(0.5)
    assert mrr(["b"], ranked, k=3) == Score(0.0)
    # gains 0 1 0 1 at ranks 1..4 over gains 1 1: (1/1.585 + 1/2.3219) / (1 + 1/1.585)
    assert ndcg_at_k(["a", "b"], ranked, 4).value == pytest.approx(0.650921, abs=1e-6)


def test_ndcg_uses_graded_relevance():
    # (1 + 3/1.585) / (3 + 1/1.585)
    assert ndcg_at_k({"a": 3, "b": 1, "c": 0}, ["b", "a"], 2).value == pytest.approx(
        0.796708, abs=1e-6
    )


def test_a_query_without_relevant_ids_is_unscored_and_k_must_be_positive():
    assert not recall_at_k({"a": 0}, ["a"], 3).scored
    with pytest.raises(MetricError, match="at least 1"):
        recall_at_k(["a"], ["a"], 0)


def test_a_run_is_scored_over_all_queries_of_the_qrels():
    scores = score_run({"q1": {"a": 1}, "q2": ["b"]}, {"q1": ["a"]}, k=5)
    assert scores["q1"]["mrr"] == Score(1.0)
    assert scores["q2"]["ndcg_at_k"] == Score(0.0)
    with pytest.raises(MetricError, match="'q9'"):
        score_run({"q1": ["a"]}, {"q9": ["a"]})


@given(st.lists(st.sampled_from("abcdef"), max_size=8), st.sets(st.sampled_from("abc"), min_size=1))
def test_retrieval_scores_stay_within_bounds_and_recall_grows_with_k(ranked, relevant):
    recalls = [recall_at_k(relevant, ranked, k).value or 0 for k in range(1, 7)]
    assert recalls == sorted(recalls)
    for k in (1, 3, 6):
        assert 0 <= (ndcg_at_k(relevant, ranked, k).value or 0) <= 1


def test_an_unknown_metric_is_refused_with_the_choices():
    with pytest.raises(MetricError, match="token_f1"):
        find_metric("bleurt")
