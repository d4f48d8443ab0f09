"""Laws of chunking: nothing lost, exact offsets, token limit, order, determinism."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from retrieval_fakes import count_words

from retrieval.chunking import ChunkingOptions, chunk_document, embed_text
from retrieval.parsing import parse_bytes
from retrieval.parsing.text import DocumentBuilder

SMALL = ChunkingOptions(max_tokens=24, min_tokens=6)

words = st.lists(
    st.sampled_from(
        ["refund", "order", "24", "Dr.", "U.S.", "e.g.", "it's", "naïve", "漢字", "😀", "a,b", "x!"]
    ),
    min_size=1,
    max_size=40,
).map(" ".join)
rows = st.lists(words, min_size=1, max_size=12).map("\n".join)
blocks = st.one_of(
    st.tuples(st.just("heading"), words.map(lambda w: w[:80]), st.integers(1, 4)),
    st.tuples(st.sampled_from(["paragraph", "list_item"]), words, st.just(0)),
    st.tuples(st.sampled_from(["table", "code"]), rows, st.just(0)),
    st.tuples(st.just("paragraph"), st.just("x" * 900), st.just(0)),
)


def build(parts):
    builder = DocumentBuilder("made.md", "text/markdown")
    for number, (kind, text, level) in enumerate(parts):
        builder.add(kind, text, level=level, page=number // 3 + 1)
    return builder.build(title="Made")


documents = st.lists(blocks, min_size=1, max_size=14).map(build)


@settings(max_examples=150, deadline=None)
@given(documents)
def test_no_text_is_lost_and_none_is_doubled(document):
    chunks = chunk_document(document, count_words, SMALL)
    covered = [0] * len(document.text)
    for chunk in chunks:
        for i in range(chunk.start_char, chunk.end_char):
            covered[i] += 1
    path_headings = {heading for chunk in chunks for heading in chunk.heading_path}
    for block in document.blocks:
        carried = block.kind == "heading" and block.text in path_headings
        for i in range(block.start, block.end):
            if not document.text[i].isspace():
                assert covered[i] == 1 or (carried and covered[i] == 0)


@settings(max_examples=150, deadline=None)
@given(documents)
def test_offsets_order_and_limits_hold(document):
    chunks = chunk_document(document, count_words, SMALL)
    assert [c.ordinal for c in chunks] == list(range(len(chunks)))
    end = 0
    for chunk in chunks:
        own = document.text[chunk.start_char : chunk.end_char]
        assert chunk.text.endswith(own)
        prefix = chunk.text.removesuffix(own)
        assert prefix == "" or any(
            b.kind == "table" and prefix == b.text.split("\n")[0] + "\n" for b in document.blocks
        )
        assert chunk.start_char >= end
        end = chunk.end_char
        assert chunk.n_tokens == count_words(chunk.text) <= SMALL.max_tokens
        assert len(own) <= SMALL.max_tokens * 16
        assert chunk.page_start <= chunk.page_end
    assert chunks == chunk_document(document, count_words, SMALL)


def test_sentences_stay_whole():
    sentences = [f"Sentence number {n} tells a fact about Dr. Who." for n in range(12)]
    document = parse_bytes(" ".join(sentences).encode(), "a.txt")
    chunks = chunk_document(document, count_words, SMALL)
    assert len(chunks) > 3
    for chunk in chunks:
        parts = re.split(r"(?<=Who\.)\s+", chunk.text)
        assert set(parts) <= set(sentences)


def test_split_table_repeats_its_header_row():
    rows = "\n".join(f"| country {n} | {n} days |" for n in range(12))
    source = f"# Delivery\n\n| Country | Time |\n|---|---|\n{rows}\n"
    document = parse_bytes(source.encode(), "a.md")
    chunks = chunk_document(document, count_words, SMALL)
    assert len(chunks) > 1
    assert all(c.text.startswith("Country | Time\n") for c in chunks)
    assert all(c.heading_path == ("Delivery",) for c in chunks)
    assert sum(c.text.count("days") for c in chunks) == 12


def test_headings_travel_in_the_path_and_in_the_embedded_text():
    source = (
        b"# Guide\n\n" + b"alpha beta gamma delta. " * 8 + b"\n\n## Fees\n\n" + b"It costs 5. " * 12
    )
    document = parse_bytes(source, "a.md")
    chunks = chunk_document(document, count_words, SMALL)
    last = chunks[-1]
    assert last.heading_path == ("Guide", "Fees")
    assert "Fees" not in last.text
    assert embed_text(last, "Guide") == f"Guide > Fees\n{last.text}"


def test_small_sections_are_merged_with_their_headings():
    document = parse_bytes(
        b"# FAQ\n\n## A?\n\nYes it is.\n\n## B?\n\nNo.\n\n## Long\n\n" + b"word " * 23, "a.md"
    )
    chunks = chunk_document(document, count_words, SMALL)
    assert chunks[0].heading_path == ("FAQ",)
    assert chunks[0].text == "A?\n\nYes it is.\n\nB?\n\nNo."
    assert chunks[1].heading_path == ("FAQ", "Long")


def test_heading_without_text_can_still_be_found():
    document = parse_bytes(
        b"# Title\n\nSome text that is here for you.\n\n## Call 555-0100\n", "a.md"
    )
    assert "Call 555-0100" in " ".join(c.text for c in chunk_document(document, count_words, SMALL))


def test_changing_one_paragraph_changes_few_hashes():
    parts = [f"# Section {n}\n\n" + f"fact {n} is here to stay. " * 5 for n in range(20)]
    before = {c.content_hash for c in _chunks(parts)}
    parts[7] = parts[7].replace("stay", "go")
    after = {c.content_hash for c in _chunks(parts)}
    assert 1 <= len(after - before) <= 2


def _chunks(parts):
    return chunk_document(parse_bytes("\n\n".join(parts).encode(), "a.md"), count_words, SMALL)


@pytest.mark.parametrize(("most", "least"), [(4, 1), (20, 11), (20, -1)])
def test_impossible_limits_are_refused(most, least):
    with pytest.raises(ValueError, match="max_tokens"):
        ChunkingOptions(max_tokens=most, min_tokens=least)
