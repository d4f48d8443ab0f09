"""Hits joined with their neighbours, against the document they were cut from."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from retrieval_fakes import count_words, hit

from retrieval.chunking import ChunkingOptions, chunk_document
from retrieval.neighbours import widen
from retrieval.parsing import parse_bytes
from retrieval.types import Chunk

SMALL = ChunkingOptions(max_tokens=12, min_tokens=0)


def chunk(ordinal, text, start, *, headings=(), prefix="", page=None):
    return Chunk(
        ordinal=ordinal,
        text=prefix + text,
        heading_path=headings,
        page_start=page,
        page_end=page,
        start_char=start,
        end_char=start + len(text),
        n_tokens=1,
        content_hash="",
    )


def as_hit(made, version="v"):
    return replace(
        hit(made.text, version=version),
        chunk_id=f"{made.ordinal:04d}",
        ordinal=made.ordinal,
        heading_path=made.heading_path,
        page_start=made.page_start,
        page_end=made.page_end,
        start_char=made.start_char,
        end_char=made.end_char,
    )


def lookup(chunks, version="v"):
    by_place = {(version, c.ordinal): c for c in chunks}
    return lambda places: {place: by_place[place] for place in places if place in by_place}


THREE = [chunk(0, "One.", 0, page=1), chunk(1, "Two.", 5, page=2), chunk(2, "Three.", 10, page=3)]


def test_both_sides_are_joined_with_offsets_and_pages():
    (wide,) = widen([as_hit(THREE[1])], lookup(THREE))
    assert wide.text == "One. Two. Three."
    assert (wide.start_char, wide.end_char) == (0, 16)
    assert (wide.page_start, wide.page_end) == (1, 3)
    assert (wide.ordinal, wide.chunk_id) == (1, "0001")


def test_reach_counts_chunks_on_a_side():
    (near,) = widen([as_hit(THREE[0])], lookup(THREE))
    (far,) = widen([as_hit(THREE[0])], lookup(THREE), reach=2)
    assert (near.text, far.text) == ("One. Two.", "One. Two. Three.")
    with pytest.raises(ValueError, match="reach"):
        widen([], lookup([]), reach=0)


def test_neighbours_of_another_heading_or_version_stay_apart():
    other = [replace(THREE[0], heading_path=("B",)), THREE[1], THREE[2]]
    (wide,) = widen([as_hit(THREE[1])], lookup(other))
    assert wide.text == "Two. Three."
    assert widen([as_hit(THREE[1])], lookup(THREE, version="old")) == [as_hit(THREE[1])]


def test_text_between_chunks_keeps_them_apart():
    apart = [THREE[0], chunk(1, "Two.", 40)]
    assert widen([as_hit(apart[0])], lookup(apart))[0].text == "One."


def test_overlap_is_not_repeated():
    chunks = [chunk(0, "One two three", 0), chunk(1, "three four", 8)]
    (wide,) = widen([as_hit(chunks[0])], lookup(chunks))
    assert wide.text == "One two three four"
    (wide,) = widen([as_hit(chunks[1])], lookup(chunks))
    assert (wide.text, wide.start_char) == ("One two three four", 0)


def test_a_repeated_table_header_is_dropped_where_tables_join():
    rows = [chunk(0, "h | k\n1 | 2", 0), chunk(1, "3 | 4", 12, prefix="h | k\n")]
    assert widen([as_hit(rows[1])], lookup(rows))[0].text == "h | k\n1 | 2 3 | 4"


def test_a_hit_is_not_swallowed_and_a_chunk_between_goes_to_the_better_hit():
    first, second = widen([as_hit(THREE[0]), as_hit(THREE[2])], lookup(THREE))
    assert (first.text, second.text) == ("One. Two.", "Three.")
    assert widen([as_hit(THREE[0]), as_hit(THREE[1])], lookup(THREE[:2]))[0].text == "One."


def test_all_hits_ask_once():
    asked = []

    def neighbours(places):
        asked.append(list(places))
        return {}

    widen([as_hit(THREE[0]), as_hit(THREE[2])], neighbours)
    assert asked == [[("v", 1), ("v", 3)]]


@given(
    st.lists(st.sampled_from(["A b c. ", "Dee e.\n\n", "# Head\n\n", "- item one\n"]), max_size=25),
    st.integers(1, 3),
    st.data(),
)
def test_joined_text_is_as_long_as_its_span_and_has_the_documents_words(parts, reach, data):
    document = parse_bytes(("Start.\n\n" + "".join(parts)).encode(), "a.md")
    chunks = chunk_document(document, count_words, SMALL)
    chosen = data.draw(st.lists(st.sampled_from(chunks), unique=True, min_size=1))
    for before, after in zip(
        map(as_hit, chosen), widen(list(map(as_hit, chosen)), lookup(chunks), reach), strict=True
    ):
        assert len(after.text) == after.end_char - after.start_char
        source = document.text[after.start_char : after.end_char]
        assert after.text.split() == source.split()
        assert before.text in after.text
