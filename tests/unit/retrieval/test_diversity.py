"""Maximal marginal relevance: hand-worked choices and its laws."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval.diversity import mmr

EAST, NORTH, NEAR_EAST = [1.0, 0.0], [0.0, 1.0], [0.8, 0.6]


def vectors(*rows):
    return np.array(rows, dtype=np.float32)


def test_a_repetition_gives_way_to_something_new():
    rows = vectors(EAST, EAST, NORTH)
    assert mmr([1.0, 0.9, 0.0], rows, 2, 1.0) == [0, 1]
    # 0.5 x 0.9 - 0.5 x 1 = -0.05 for the repetition, 0 for the new one.
    assert mmr([1.0, 0.9, 0.0], rows, 2, 0.5) == [0, 2]


def test_likeness_is_to_the_most_alike_of_those_chosen():
    rows = vectors(EAST, NORTH, NEAR_EAST, [-1.0, 0.0])
    assert mmr([1.0, 0.95, 0.9, 0.0], rows, 4, 0.9) == [0, 1, 2, 3]
    assert mmr([1.0, 0.95, 0.9, 0.0], rows, 4, 0.5) == [0, 3, 1, 2]


def test_equal_scores_keep_their_order_without_likeness():
    assert mmr([2.0, 2.0, 2.0], vectors(EAST, EAST, EAST), 3, 0.7) == [0, 1, 2]


def test_an_item_without_a_score_stands_with_the_last():
    rows = vectors(EAST, NORTH, NEAR_EAST)
    assert mmr([1.0, 0.5, -np.inf], rows, 3, 1.0) == [0, 1, 2]
    assert mmr([-np.inf, -np.inf], rows[:2], 2, 0.5) == [0, 1]


def test_nothing_gives_nothing():
    assert mmr([], np.empty((0, 2), np.float32), 3, 0.5) == []


@pytest.mark.parametrize("balance", [-0.1, 1.1])
def test_balance_outside_its_range_is_refused(balance):
    with pytest.raises(ValueError, match="balance"):
        mmr([1.0], vectors(EAST), 1, balance)


def test_scores_and_vectors_must_agree_in_number():
    with pytest.raises(ValueError, match="vectors"):
        mmr([1.0, 0.5], vectors(EAST), 1, 0.5)


@given(
    st.lists(st.tuples(st.integers(-500, 500), st.integers(0, 359)), min_size=1, max_size=8),
    st.integers(1, 10),
    st.floats(0, 1),
    st.floats(0.1, 9),
    st.floats(-3, 3),
)
def test_laws(items, limit, balance, stretch, shift):
    scores = sorted((score / 100 for score, _ in items), reverse=True)
    angles = [np.deg2rad(angle) for _, angle in items]
    rows = vectors(*[[np.cos(angle), np.sin(angle)] for angle in angles])
    chosen = mmr(scores, rows, limit, balance)
    assert len(chosen) == len(set(chosen)) == min(limit, len(items))
    assert chosen[0] == 0
    assert mmr(scores, rows, limit, 1.0) == list(range(min(limit, len(items))))
    assert mmr(scores, rows, max(limit - 1, 1), balance) == chosen[: max(limit - 1, 1)]
    assert set(mmr([s * stretch + shift for s in scores], rows, len(items), balance)) == set(
        range(len(items))
    )
