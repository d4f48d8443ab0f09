"""Laws of packing: budget kept, nothing cut, best at the edges, repetition dropped."""

from hypothesis import given
from hypothesis import strategies as st
from retrieval_fakes import count_words, hit

from retrieval.context import edges_first, pack, passage_text

texts = st.lists(
    st.lists(st.sampled_from(["a", "b", "c", "d", "e", "f"]), min_size=1, max_size=8).map(" ".join),
    max_size=10,
)


@given(texts, st.integers(0, 30))
def test_budget_holds_and_every_hit_is_whole_or_dropped(texts, budget):
    hits = [hit(t, rank=n) for n, t in enumerate(texts, start=1)]
    packed = pack(hits, budget, count_words)
    assert sum(count_words(p.text) for p in packed.passages) <= budget
    assert [p.number for p in packed.passages] == list(range(1, len(packed.passages) + 1))
    assert all(p.text == passage_text(p.hit) for p in packed.passages)
    together = [p.hit for p in packed.passages] + list(packed.dropped)
    assert sorted(h.chunk_id for h in together) == sorted(h.chunk_id for h in hits)


@given(texts, st.integers(0, 30))
def test_a_dropped_hit_did_not_fit_or_repeats(texts, budget):
    hits = [hit(t, rank=n) for n, t in enumerate(texts, start=1)]
    packed = pack(hits, budget, count_words)
    used = sum(count_words(p.text) for p in packed.passages)
    for dropped in packed.dropped:
        repeats = any(dropped.text in p.hit.text for p in packed.passages)
        assert repeats or count_words(passage_text(dropped)) > budget - used


def test_best_stands_first_and_second_best_last():
    assert edges_first([1, 2, 3, 4, 5]) == [1, 3, 5, 4, 2]
    assert edges_first([1, 2, 3]) == [1, 3, 2]
    assert edges_first([1]) == [1]
    assert edges_first([]) == []


def test_a_large_hit_makes_room_for_a_smaller_one():
    packed = pack([hit("one two three four", rank=1), hit("five", rank=2)], 2, count_words)
    assert [p.hit.text for p in packed.passages] == ["five"]
    assert [h.text for h in packed.dropped] == ["one two three four"]


def test_passage_starts_with_title_and_headings():
    assert passage_text(hit("Body.", title="Guide")) == "Guide\nBody."
