"""What becomes of a correction, and who may decide about it."""

import pytest
from factories import add_answer, principal_of

from app.db.tables import Document, Example
from app.errors import BadInput, Conflict, Forbidden, NotFound
from app.feedback import service

PRICE = "The Ripple plan costs 49 euros a month."
RETURN = "A helmet can be returned within 21 days."


@pytest.fixture
def session(database):
    with database.session() as session:
        yield session


@pytest.fixture
def ada(session):
    return principal_of(session, "ada", "client")


@pytest.fixture
def rob(session):
    return principal_of(session, "rob", "reviewer")


def corrected(session, author, correction, passages=(PRICE, RETURN), **fields):
    answer = add_answer(session, author, passages, **fields)
    _, review = service.give(session, author, answer.id, rating="down", correction=correction)
    return review


def approve(session, reviewer, review, **more):
    return service.decide(session, reviewer, review.id, **{"decision": "approve"} | more)


def test_supported_correction_becomes_a_grounded_example(session, ada, rob):
    review = corrected(session, ada, "The Ripple plan costs 49 euros a month. Fair winds!")
    verdict = approve(session, rob, review)
    assert verdict.outcome == "example"
    example = verdict.example
    assert (example.kind, example.sources) == ("grounded", ["doc-1.md"])
    assert example.gold_text == PRICE
    assert (example.author, example.reviewer, example.review_id) == ("ada", "rob", review.id)


@pytest.mark.parametrize(
    "text", ["It costs 55 euros a month.", "Ripple: 49 euros from 3 May 2031."]
)
def test_fact_no_passage_holds_is_a_knowledge_gap(session, ada, rob, text):
    verdict = approve(session, rob, corrected(session, ada, text))
    assert (verdict.outcome, verdict.example) == ("knowledge_gap", None)
    assert "change the knowledge base" in verdict.reason
    assert verdict.review.state == "approved"
    assert session.query(Example).count() == 0


def test_values_of_two_passages_together_are_a_knowledge_gap_that_says_so(session, ada, rob):
    text = "Ripple costs 49 euros and is returned within 21 days."
    verdict = approve(session, rob, corrected(session, ada, text))
    assert verdict.outcome == "knowledge_gap"
    assert "its values together" in verdict.reason


def test_abstention_is_taught_as_abstention(session, ada, rob):
    review = corrected(session, ada, "I could not find this in the knowledge base.")
    assert approve(session, rob, review).example.kind == "abstain"


def test_wording_without_facts_is_a_style_example(session, ada, rob):
    verdict = approve(session, rob, corrected(session, ada, "Ahoy, glad you asked! Fair winds!"))
    assert (verdict.example.kind, verdict.example.gold) == ("style", [])


def test_answer_without_passages_teaches_voice(session, ada, rob):
    review = corrected(session, ada, "Ahoy, how may I help?", passages=(), arm="tuned")
    assert approve(session, rob, review).example.kind == "style"


@pytest.mark.parametrize("change", ["deleted", "updated"])
def test_fact_whose_passages_have_changed_since_is_not_taught(session, ada, rob, change):
    review = corrected(session, ada, "The Ripple plan costs 49 euros a month.")
    from app.db.base import now

    for document in session.query(Document):
        if change == "deleted":
            document.deleted_at = now()
        document.current_version_id = None if change == "deleted" else "newer"
    session.flush()
    verdict = approve(session, rob, review)
    assert verdict.outcome == "knowledge_gap"
    assert verdict.example is None


def test_citation_markers_of_a_correction_are_not_learned(session, ada, rob):
    review = corrected(session, ada, "The Ripple plan costs 49 euros a month [1].")
    assert "[1]" not in approve(session, rob, review).example.answer


def test_cite_placeholder_of_a_correction_is_kept(session, ada, rob):
    review = corrected(session, ada, "The Ripple plan costs 49 euros a month {cite}.")
    assert "{cite}" in approve(session, rob, review).example.answer


def test_rejected_correction_teaches_nothing(session, ada, rob):
    review = corrected(session, ada, "The Ripple plan costs 49 euros a month.")
    verdict = approve(session, rob, review, decision="reject", note="rude")
    assert (verdict.outcome, review.state, review.note) == ("rejected", "rejected", "rude")
    assert session.query(Example).count() == 0


def test_edited_wording_is_the_one_that_is_learned(session, ada, rob):
    review = corrected(session, ada, "It costs 55 euros a month.")
    text = "The Ripple plan costs 49 euros a month."
    verdict = approve(session, rob, review, decision="edit", text=text)
    assert (verdict.example.answer, review.state, review.final_text) == (text, "edited", text)


def test_same_example_twice_is_stored_once(session, ada, rob):
    text = "The Ripple plan costs 49 euros a month."
    answer = add_answer(session, ada, (PRICE,))
    verdicts = []
    for wording in (text, f"  {text.upper()} "):
        _, review = service.give(session, ada, answer.id, rating="down", correction=wording)
        verdicts.append(approve(session, rob, review))
    assert verdicts[0].example.id == verdicts[1].example.id
    assert session.query(Example).count() == 1


def test_author_cannot_review_the_own_correction(session, ada):
    review = corrected(session, ada, PRICE)
    for decision in ({"decision": "approve"}, {"decision": "reject"}):
        with pytest.raises(Forbidden, match="'ada' wrote this correction"):
            service.decide(session, ada, review.id, **decision)
    assert review.state == "pending"


def test_decided_review_cannot_be_decided_again(session, ada, rob):
    review = corrected(session, ada, PRICE)
    approve(session, rob, review)
    for decision in ("approve", "reject"):
        with pytest.raises(Conflict, match="approved already, by 'rob'"):
            approve(session, rob, review, decision=decision)


@pytest.mark.parametrize(
    "wrong",
    [
        {"decision": "edit"},
        {"decision": "edit", "text": "  "},
        {"decision": "approve", "text": "mine"},
        {"decision": "maybe"},
    ],
)
def test_unusable_decision_changes_nothing(session, ada, rob, wrong):
    review = corrected(session, ada, PRICE)
    with pytest.raises(BadInput):
        approve(session, rob, review, **wrong)
    assert review.state == "pending"


@pytest.mark.parametrize("wrong", [{"rating": "so-so"}, {"rating": "up", "correction": " "}])
def test_unusable_feedback_is_refused(session, ada, wrong):
    answer = add_answer(session, ada, (PRICE,))
    with pytest.raises(BadInput):
        service.give(session, ada, answer.id, **wrong)


def test_answers_and_reviews_of_another_workspace_do_not_exist(session, ada, rob):
    stranger = principal_of(session, "eve", "owner", workspace="elsewhere")
    answer = add_answer(session, ada, (PRICE,))
    with pytest.raises(NotFound):
        service.give(session, stranger, answer.id, rating="up")
    review = corrected(session, ada, PRICE)
    with pytest.raises(NotFound):
        approve(session, stranger, review)
    assert service.queue(session, stranger.workspace_id, None) == []


def test_queue_shows_pending_reviews_oldest_first(session, ada, rob):
    first, second = (corrected(session, ada, PRICE, question=q) for q in ("one?", "two?"))
    assert [row["id"] for row in service.queue(session, ada.workspace_id)] == [first.id, second.id]
    approve(session, rob, first)
    assert [row["question"] for row in service.queue(session, ada.workspace_id)] == ["two?"]
    assert len(service.queue(session, ada.workspace_id, None)) == 2
