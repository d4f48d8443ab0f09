"""Texts of like length share a forward pass, and a pass stays small."""

import random

import pytest

from retrieval.passage_batches import share_out


@pytest.mark.parametrize("workers", [1, 2, 5])
@pytest.mark.parametrize("most_tokens", [None, 64, 500])
def test_every_text_is_in_one_pass(most_tokens: int | None, workers: int) -> None:
    chance = random.Random(7)
    for n in (0, 1, 3, 40):
        lengths = [chance.randint(1, 200) for _ in range(n)]
        batches = share_out(lengths, most_texts=8, most_tokens=most_tokens, workers=workers)
        assert sorted(i for batch in batches for i in batch) == list(range(n))
        assert all(len(batch) <= 8 for batch in batches)


def test_a_pass_with_its_padding_stays_within_the_tokens() -> None:
    lengths = [10, 90, 10, 30, 50, 10, 50]
    batches = share_out(lengths, most_texts=32, most_tokens=100)
    assert batches == [[0, 2, 5], [3, 4], [6], [1]]
    assert all(len(b) * max(lengths[i] for i in b) <= 100 for b in batches)


def test_a_text_over_the_limit_has_a_pass_of_its_own() -> None:
    assert share_out([5, 400, 6], most_texts=32, most_tokens=100) == [[0, 2], [1]]


def test_texts_of_like_length_share_a_pass_wherever_they_stand() -> None:
    lengths = [100, 10] * 16
    batches = share_out(lengths, most_texts=16, most_tokens=None)
    assert {frozenset(lengths[i] for i in batch) for batch in batches} == {
        frozenset({10}),
        frozenset({100}),
    }


def test_a_few_texts_are_shared_out_among_the_workers() -> None:
    assert len(share_out([7] * 4, most_texts=32, most_tokens=None, workers=4)) == 4
    assert len(share_out([7] * 4, most_texts=32, most_tokens=None, workers=1)) == 1
