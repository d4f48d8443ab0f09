"""The coverage model: its features by hand, its fit against known coefficients, its laws."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from retrieval_fakes import hit

from retrieval.coverage import (
    FEATURES,
    CoverageModel,
    coverage_features,
    fit_coverage,
    shipped_coverage,
)
from retrieval.index import Candidate


def candidate(text, cosine, bm25=None, *, document="d"):
    return Candidate(replace(hit(text), dense_score=cosine, document_id=document), bm25, None)


def named(question, candidates):
    return dict(zip(FEATURES, coverage_features(question, candidates), strict=True))


def test_features_by_hand():
    found = named(
        "How long does the warranty of a printer last?",
        [
            candidate("Each printer has a warranty.", 0.6, 3.0),
            candidate("It will last three years.", 0.4, 1.0),
            candidate("Something else.", 0.2),
        ],
    )
    assert found["best_cosine"] == 0.6
    assert found["rise_over_mean"] == pytest.approx(0.2)
    # warranty, printer, last and long: three are in one of three passages, `long` in none.
    seen, unseen = np.log(1 + 3.5 / 1.5), np.log(1 + 3.5 / 0.5)
    total = 3 * seen + unseen
    assert found["terms_in_best"] == pytest.approx(2 * seen / total)
    assert found["terms_in_best_three"] == pytest.approx(3 * seen / total)
    assert found["sides_agree"] == 1.0


def test_sides_disagree_when_another_passage_leads_by_words():
    pair = [candidate("one", 0.6, 1.0), candidate("two", 0.4, 3.0)]
    assert named("x?", pair)["sides_agree"] == 0.0
    assert named("x?", [candidate("one", 0.6)])["sides_agree"] == 0.0


@pytest.mark.parametrize(
    ("question", "text"),
    [
        ("refunds", "A refund is paid."),
        ("policy", "All policies hold."),
        ("shipping", "We shipped it."),
        ("COVID-19", "the covid-19 rules"),
        ("Tesla", "Tesla's coil"),
        ("price 3.5", "3.5 is the price"),
    ],
)
def test_terms_meet_their_inflections(question, text):
    assert named(question, [candidate(text, 0.5)])["terms_in_best"] == pytest.approx(1.0)


@pytest.mark.parametrize(("question", "text"), [("art", "a party"), ("plan", "planet"), ("", "x")])
def test_terms_do_not_meet_other_words(question, text):
    assert named(question, [candidate(text, 0.5)])["terms_in_best"] == 0.0


def test_nothing_found_is_not_covered():
    assert shipped_coverage().probability("anything", []) == 0.0


def test_the_shipped_model_tells_how_it_was_made():
    from retrieval import coverage

    stored = json.loads(coverage._SHIPPED.read_text("utf-8"))
    assert CoverageModel.from_json(stored) == shipped_coverage()
    assert {"seed", "sets", "licences", "training_rows", "held_out"} <= stored["manifest"].keys()
    assert min(shipped_coverage().weights) >= 0


def test_a_model_of_other_features_is_refused():
    stored = shipped_coverage().to_json() | {"features": ["length"]}
    with pytest.raises(ValueError, match="length"):
        CoverageModel.from_json(stored)
    with pytest.raises(ValueError, match="5"):
        CoverageModel((0.0,), (1.0,), (1.0,), 0.0)


def test_the_fit_finds_the_coefficients_that_made_the_labels():
    chance = np.random.default_rng(1)
    x = chance.standard_normal((40_000, 5))
    slopes = np.array([1.0, 0.5, 0.0, 2.0, 0.25])
    labels = (chance.random(len(x)) < 1 / (1 + np.exp(-(x @ slopes - 0.7)))).astype(float)
    model = fit_coverage(x, labels, np.ones(len(x)))
    assert np.array(model.weights) / np.array(model.scale) == pytest.approx(slopes, abs=0.1)
    twice = fit_coverage(np.vstack([x, x]), np.tile(labels, 2), np.full(2 * len(x), 0.5))
    assert twice.weights == pytest.approx(model.weights, abs=1e-6)


def test_the_fit_never_learns_against_a_feature():
    chance = np.random.default_rng(2)
    x = chance.standard_normal((2_000, 5))
    labels = (x[:, 0] - x[:, 1] > 0).astype(float)
    weights = fit_coverage(x, labels, np.ones(len(x))).weights
    assert weights[0] > 1
    assert weights[1] == 0.0


def test_constant_features_and_labels_do_no_harm():
    x = np.zeros((10, 5))
    model = fit_coverage(x, np.ones(10), np.ones(10))
    assert np.isfinite([*model.weights, model.intercept]).all()


@given(
    st.lists(
        st.tuples(st.text(max_size=40), st.floats(-1, 1), st.none() | st.floats(0, 50)),
        min_size=1,
        max_size=20,
    ),
    st.text(max_size=60),
)
def test_it_is_a_probability_and_every_share_a_share(rows, question):
    candidates = [candidate(*row) for row in rows]
    found = named(question, candidates)
    assert 0 <= found["terms_in_best"] <= found["terms_in_best_three"] <= 1 + 1e-9
    assert 0 <= shipped_coverage().probability(question, candidates) <= 1
