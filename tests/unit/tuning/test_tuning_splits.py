import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuning.errors import TuningError
from tuning.splits import (
    SplitItem,
    assign_splits,
    connected_components,
    ngram_overlap,
    normalise_question,
)

ITEMS = st.lists(
    st.tuples(st.sampled_from("abcdefgh"), st.lists(st.sampled_from("uvwxyz"), max_size=3)),
    min_size=1,
    max_size=25,
).map(
    lambda pairs: [
        SplitItem(f"i{n}", f"question {q}", tuple(sources)) for n, (q, sources) in enumerate(pairs)
    ]
)


@given(ITEMS, st.integers(0, 5))
def test_nothing_shared_lies_on_two_sides(items, seed):
    split = assign_splits(items, seed=seed, dev=0.3, test=0.3).split
    for one in items:
        for two in items:
            if set(one.sources) & set(two.sources) or one.question == two.question:
                assert split[one.id] == split[two.id]


@given(ITEMS, st.randoms())
def test_the_order_of_items_does_not_matter(items, rng):
    shuffled = list(items)
    rng.shuffle(shuffled)
    assert assign_splits(items, seed=3).split == assign_splits(shuffled, seed=3).split


def test_items_chain_into_one_component():
    items = [SplitItem("1", "a", ("x",)), SplitItem("2", "b", ("x", "y")), SplitItem("3", "B?", ())]
    assert len(set(connected_components(items).values())) == 1


def test_a_giant_component_is_reported():
    items = [SplitItem(str(n), f"q{n}", ("same",)) for n in range(8)]
    items += [SplitItem(f"o{n}", f"r{n}") for n in range(4)]
    audit = assign_splits(items).audit
    assert audit.largest_share == pytest.approx(8 / 12)
    assert "67%" in audit.warning


def test_no_side_stays_empty_with_three_components():
    for seed in range(10):
        items = [SplitItem(str(n), f"q{n}") for n in range(3)]
        counts = assign_splits(items, seed=seed).audit.counts
        assert all(counts[side] for side in ("train", "dev", "test")), counts


def test_another_seed_gives_another_split():
    items = [SplitItem(str(n), f"q{n}") for n in range(60)]
    assert assign_splits(items, seed=1).split != assign_splits(items, seed=2).split


def test_repeated_ids_and_impossible_shares_are_refused():
    with pytest.raises(TuningError, match="more than once"):
        assign_splits([SplitItem("1", "a"), SplitItem("1", "b")])
    with pytest.raises(TuningError, match="room for train"):
        assign_splits([SplitItem("1", "a")], dev=0.6, test=0.5)


def test_questions_alike_but_for_form_are_equal():
    assert normalise_question("What's the  FEE?") == normalise_question("what s the fee")


def test_overlap_counts_held_out_texts_with_a_shared_run():
    train = ["one two three four five"]
    assert ngram_overlap(train, ["zero two three four", "one two four"], n=3) == 1
