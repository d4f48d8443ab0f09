"""Citations, quotes, values and abstention of an answer."""

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from app.answers.grounding import ground, is_abstention, without_markers
from retrieval.context import Passage, passage_text
from retrieval.types import Hit, WorkspaceId
from tuning.prompt import DEFAULT_ABSTAIN

MARKER = re.compile(r"\[(\d{1,3})\]")


def passage(number, text, *, start=100, lead="", title="Plans"):
    """A passage whose chunk stands at `start`; `lead` is a repeated table header before it."""
    hit = Hit(
        chunk_id=f"c{number}",
        document_id="d",
        version_id="v",
        score=1.0,
        dense_score=0.5,
        workspace_id=WorkspaceId("w"),
        knowledge_base_id="kb",
        text=lead + text,
        title=title,
        heading_path=(),
        page_start=None,
        page_end=None,
        start_char=start,
        end_char=start + len(text),
        ordinal=0,
    )
    return Passage(number, hit, passage_text(hit))


PLANS = passage(
    1, "The Ripple plan costs 49 euros a month. The Torrent plan costs 79 euros a month."
)
RETURNS = passage(2, "A helmet can be returned within 21 days.")


def test_cited_passage_gives_the_sentence_that_supports_the_answer():
    found = ground(
        "Torrent costs 79 euros [1].", "What does Torrent cost?", (PLANS, RETURNS), DEFAULT_ABSTAIN
    )
    (quote,) = found.quotes
    assert quote.text == "The Torrent plan costs 79 euros a month."
    body = "x" * 100 + PLANS.hit.text
    assert body[quote.start : quote.end] == quote.text
    assert found.grounded is True


def test_decimal_point_does_not_end_a_sentence():
    text = "A tube costs 8.50 euros at v2.1 shops. Bells are free of charge."
    found = ground("Bells are free [1].", "Are bells free?", (passage(1, text),), DEFAULT_ABSTAIN)
    assert found.quotes[0].text == "Bells are free of charge."
    found = ground("A tube costs 8.50 euros [1].", "?", (passage(1, text),), DEFAULT_ABSTAIN)
    assert found.quotes[0].text == "A tube costs 8.50 euros at v2.1 shops."


def test_value_that_no_cited_passage_holds_is_reported():
    found = ground("Ripple costs 59 euros [1].", "?", (PLANS, RETURNS), DEFAULT_ABSTAIN)
    assert found.grounded is False
    assert any("59" in surface for surface in found.unsupported)


def test_value_of_an_uncited_passage_does_not_count():
    found = ground("It costs 49 euros [2].", "?", (PLANS, RETURNS), DEFAULT_ABSTAIN, mend=False)
    assert found.grounded is False
    assert found.text == "It costs 49 euros [2]."


def test_answer_that_no_passage_supports_is_neither_grounded_nor_not():
    found = ground("Rain is expected tomorrow.", "?", (PLANS,), DEFAULT_ABSTAIN)
    assert (found.grounded, found.quotes) == (None, ())


def test_marker_that_points_nowhere_is_removed_with_its_blank():
    found = ground("Ripple costs 49 euros [1] [7].", "?", (PLANS,), DEFAULT_ABSTAIN)
    assert found.text == "Ripple costs 49 euros [1]."


def test_passage_cited_twice_is_quoted_once():
    found = ground("49 euros [1]. A month [1].", "?", (PLANS,), DEFAULT_ABSTAIN)
    assert len(found.quotes) == 1


@pytest.mark.parametrize(
    "text",
    [
        DEFAULT_ABSTAIN,
        "  i could not find this in the knowledge base",
        f"{DEFAULT_ABSTAIN} [1]",
        "I could not find this in the knowledge base. Please write to us!",
    ],
)
def test_abstention_is_recognised_and_cites_nothing(text):
    found = ground(text, "?", (PLANS,), DEFAULT_ABSTAIN)
    assert found.abstained
    assert found.quotes == ()
    assert "[1]" not in found.text


def test_text_that_mentions_the_knowledge_base_is_no_abstention():
    assert not is_abstention("It is in the knowledge base.", DEFAULT_ABSTAIN)


def test_repeated_table_header_does_not_shift_the_quote():
    header = "plan | price\n"
    row = "Torrent | 79 euros"
    found = ground(
        "Torrent is 79 euros [1].",
        "Torrent?",
        (passage(1, row, start=40, lead=header),),
        DEFAULT_ABSTAIN,
    )
    (quote,) = found.quotes
    assert quote.text == row
    assert (quote.start, quote.end) == (40, 40 + len(row))


TEXTS = st.text(alphabet="ab 1234567890[].!?\n€é", max_size=80)
ANSWERS = st.one_of(TEXTS, st.text(max_size=60))


@example("a [1[9]]", ["a"], "")
@example("a [9[8]9]", ["a"], "")
@example("[\u0661] [01]", ["a"], "")
@given(ANSWERS, st.lists(TEXTS.filter(str.strip), min_size=0, max_size=4), st.text(max_size=20))
def test_grounding_never_leaves_a_marker_that_points_nowhere(answer, bodies, question):
    passages = tuple(passage(n, body) for n, body in enumerate(bodies, start=1))
    found = ground(answer, question, passages, DEFAULT_ABSTAIN)
    numbers = [int(number) for number in MARKER.findall(found.text)]
    known = {p.number for p in passages}
    assert set(numbers) <= known
    cited = {q.passage.number for q in found.quotes if q.attached is None}
    assert cited == set(numbers)
    assert not (cited and len(cited) < len(found.quotes))  # never both ways in one answer
    assert without_markers(found.text) == without_markers(without_markers(found.text))


@given(TEXTS, st.lists(TEXTS.filter(str.strip), min_size=1, max_size=3), st.integers(0, 5000))
def test_quotes_are_literally_in_the_document_at_their_offsets(answer, bodies, start):
    passages = tuple(passage(n, body, start=start) for n, body in enumerate(bodies, start=1))
    cited = answer.replace("[", "(") + "".join(f" [{p.number}]" for p in passages)
    found = ground(cited, "question", passages, DEFAULT_ABSTAIN)
    assert len(found.quotes) == len(passages)
    for quote in found.quotes:
        document = "#" * start + quote.passage.hit.text
        assert quote.text in quote.passage.hit.text
        assert document[quote.start : quote.end] == quote.text
