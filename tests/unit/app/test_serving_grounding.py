"""Names, attached citations, JSON answers, and what tells two questions apart."""

import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.answers.alignment import align
from app.answers.cache import same_question
from app.answers.correction import correct
from app.answers.grounding import ground, ground_data
from app.answers.names import unsupported_names
from retrieval.context import Passage, passage_text
from retrieval.types import Hit, WorkspaceId
from tuning.prompt import DEFAULT_ABSTAIN


def passage(number, text, title="Plans"):
    hit = Hit(
        chunk_id=f"c{number}",
        document_id="d",
        version_id="v",
        score=1.0,
        dense_score=0.5,
        workspace_id=WorkspaceId("w"),
        knowledge_base_id="kb",
        text=text,
        title=title,
        heading_path=(),
        page_start=None,
        page_end=None,
        start_char=0,
        end_char=len(text),
        ordinal=0,
    )
    return Passage(number, hit, passage_text(hit))


PLANS = passage(1, "The Ripple plan costs 49 euros a month. The Torrent plan costs 79 euros.")
HOURS = passage(2, "The workshop in Harbour Street opens at 8:30 on weekdays.", "Hours")
BOTH = (PLANS, HOURS)


@pytest.mark.parametrize(
    ("answer", "missing"),
    [
        ("The workshop is in Harbour Street.", ()),
        ("The workshop is in Garden Street.", ("Garden",)),
        ("Ask for Ripple's price.", ()),
        ("We meet Anna on Monday in May.", ("Anna",)),
        ("Opens early. Closes late.", ()),
        ("Harbour-Street is near.", ()),
        ("McDonald runs it.", ("McDonald",)),
        ("Mrs Miller runs it.", ("Miller",)),
        ("", ()),
    ],
)
def test_names_must_stand_in_the_evidence(answer, missing):
    assert unsupported_names(answer, [p.text for p in BOTH]) == missing


def test_name_of_the_question_may_be_repeated():
    assert unsupported_names("We have nothing for Anna.", ["nothing", "I am Anna"]) == ()


def test_a_wrong_name_makes_a_cited_answer_ungrounded():
    found = ground("It opens at 8:30 in Garden Street [2].", "When?", BOTH, DEFAULT_ABSTAIN)
    assert (found.grounded, found.unsupported) == (False, ("Garden",))


def test_citation_left_out_is_attached_to_its_sentence_and_the_text_stays():
    text = "Torrent costs 79 euros. The workshop opens at 8:30 on weekdays."
    found = ground(text, "Torrent?", BOTH, DEFAULT_ABSTAIN)
    assert found.text == text
    assert [q.passage.number for q in found.quotes] == [1, 2]
    assert [text[slice(*q.attached)] for q in found.quotes] == [
        "Torrent costs 79 euros.",
        "The workshop opens at 8:30 on weekdays.",
    ]
    assert found.quotes[0].text == "The Torrent plan costs 79 euros."
    assert found.grounded is True


def test_nothing_is_attached_where_a_value_is_not_the_passages():
    assert align("The Torrent plan costs 89 euros.", "?", BOTH) == ()


def test_nothing_is_attached_where_the_model_cited_something():
    found = ground("Torrent costs 79 euros [1]. It opens at 8:30.", "?", BOTH, DEFAULT_ABSTAIN)
    assert [q.attached for q in found.quotes] == [None]


@given(st.text(max_size=60), st.text(max_size=40))
def test_attached_spans_lie_in_the_text_and_never_overlap(answer, question):
    text = f"{answer} The Torrent plan costs 79 euros."
    spans = [(a.start, a.end) for a in align(text, question, BOTH)]
    assert all(0 <= start < end <= len(text) for start, end in spans)
    assert all(a[1] <= b[0] for a, b in pairwise(spans))


@pytest.mark.parametrize("answer", ["Torrent costs 79 euros [2].", "Torrent costs 79 euros. [2]"])
def test_citation_of_a_passage_that_lacks_the_sentence_goes_to_the_one_that_holds_it(answer):
    found = ground(answer, "Torrent?", BOTH, DEFAULT_ABSTAIN)
    assert found.text == answer.replace("[2]", "[1]")
    assert [(q.passage.number, q.instead_of) for q in found.quotes] == [(1, 2)]
    assert found.quotes[0].text == "The Torrent plan costs 79 euros."
    assert found.grounded is True
    as_said = ground(answer, "Torrent?", BOTH, DEFAULT_ABSTAIN, mend=False)
    assert (as_said.text, as_said.grounded) == (answer, False)


@pytest.mark.parametrize(
    ("answer", "passages"),
    [
        ("Torrent costs 79 euros [1].", BOTH),  # right already
        ("Torrent costs 89 euros [2].", BOTH),  # nobody holds the value
        ("Torrent surely costs 79 euros [2].", BOTH),  # nobody holds the word
        ("Torrent costs 79 euros [1] [2].", BOTH),  # one of both is right
        ("79 [2].", BOTH),  # one word tells too little
        ("Torrent costs 79 euros [2].", (*BOTH, passage(3, "Torrent costs 79 euros."))),  # two do
        ("Torrent costs 79 euros [2].", (PLANS, passage(2, "Torrent costs 79 euros."))),
    ],
)
def test_citation_stays_where_something_is_left_to_judge(answer, passages):
    found = ground(answer, "Torrent?", passages, DEFAULT_ABSTAIN)
    assert found.text == answer
    assert all(q.instead_of is None for q in found.quotes)


@pytest.mark.parametrize(
    ("cited", "other", "answer"),
    [
        (  # said in other words, while the other passage has all the words and says the contrary
            "You can send a helmet back up to 14 days after it arrived.",
            "A helmet that was worn is not returned within 14 days of delivery, nor later.",
            "A helmet can be returned within 14 days of delivery [1].",
        ),
        (  # "not" is no content word
            "The Ripple plan is without support by phone; write to us.",
            "The Torrent plan offers phone support. Ripple members may buy it.",
            "Ripple does not offer phone support [1].",
        ),
    ],
)
def test_citation_of_a_passage_that_holds_every_value_and_name_stays(cited, other, answer):
    passages = (passage(1, cited), passage(2, other))
    assert ground(answer, "?", passages, DEFAULT_ABSTAIN).text == answer


def test_only_the_wrong_sentence_is_corrected():
    text = "Torrent costs 79 euros [2]. The workshop opens at 8:30 [2]."
    found = ground(text, "?", BOTH, DEFAULT_ABSTAIN)
    assert found.text == "Torrent costs 79 euros [1]. The workshop opens at 8:30 [2]."
    assert [(q.passage.number, q.instead_of) for q in found.quotes] == [(1, 2), (2, None)]


@given(st.text(alphabet="Torent79 eurs.[]12\n", max_size=60))
def test_correcting_changes_numbers_of_markers_only(text):
    found = correct(text, "?", BOTH)
    blank = re.compile(r"\[[0-9]{1,3}\]")
    assert blank.sub("[]", found.text) == blank.sub("[]", text)
    assert correct(found.text, "?", BOTH).text == found.text


def test_json_numbers_and_labels_of_the_schema():
    schema = {
        "properties": {
            "label": {"enum": ["Billing Desk", "Repair"]},
            "priority": {"anyOf": [{"enum": [1, 2]}, {"const": 3}]},
        }
    }
    text = '{"label": "Billing Desk", "priority": 3, "euros": 79.0}'
    assert ground_data(text, "?", BOTH, schema).grounded is True
    assert set(ground_data(text, "?", BOTH).unsupported) == {"3", "Billing", "Desk"}
    wrong = ground_data('{"label": "Billing", "nested": [{"euros": 79.5}]}', "?", BOTH, schema)
    assert wrong.unsupported == ("79.5",)


def test_json_answer_may_say_what_was_asked_but_no_other_value():
    asked = "Anna Miller wants 20 euros back."
    good = ground_data('{"who": "Anna Miller", "amount": 20, "urgent": true}', asked, ())
    assert good.grounded is True
    bad = ground_data('{"who": "Anna Schmidt", "amount": 25}', asked, ())
    assert set(bad.unsupported) == {"25", "Schmidt"}


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("What does the Ripple plan cost?", "what does the Ripple plan cost", True),
        ("How much is it for the Ripple plan?", "What does it cost for the Ripple plan?", False),
        ("What does Ripple cost?", "What does Torrent cost?", False),
        ("what does ripple cost?", "what does torrent cost?", False),
        ("Is the workshop open?", "Is the workshop not open?", False),
        ("Isn't it open?", "Is it open?", False),
        ("Can I return it within 14 days?", "Can I return it within 30 days?", False),
        ("Can I return it within 14 days?", "May I return it within two weeks?", True),
        ("What holds before delivery?", "What holds after delivery?", False),
        ("Tell me the price, please, of Ripple", "Give me the price of Ripple, dear", True),
        ("When was the workshop opened?", "Where was the workshop opened?", False),
        ("How much does Ripple cost?", "What does Ripple cost?", True),
        ("Does Ripple cost returns?", "Do returns cost Ripple?", False),
    ],
)
def test_only_questions_that_nothing_tells_apart_share_an_answer(first, second, same):
    told = [*(p.text for p in BOTH), "The cost of returns."]
    assert same_question(first, second, told) is same
    assert same_question(second, first, told) is same


def test_without_passages_every_content_word_tells_questions_apart():
    assert not same_question("Who founded Ripple?", "Who founded Torrent?", ())
    assert same_question("Who founded Ripple?", "who founded Ripple", ())
