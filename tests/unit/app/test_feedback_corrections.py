"""What a correction changed, what it asks of the knowledge base, and what it teaches."""

from datetime import timedelta

import pytest
from factories import add_answer, principal_of

from app.datasets.preferences import make_preferences
from app.datasets.repository import rated_answers
from app.db.base import now
from app.db.tables import Chunk, Document, DocumentVersion, Ticket, UseCase
from app.errors import BadInput, Conflict, NotFound
from app.feedback import service, tickets
from app.feedback.classification import classify_correction

ABSTAIN = "I could not find this in the knowledge base."
PRICE = "The Ripple plan costs 49 euros a month."
RETURN = "A helmet can be returned within 21 days."


@pytest.mark.parametrize(
    ("answer", "corrected", "kind", "pairs"),
    [
        ("It costs 59 euros a month [1].", "It costs 49 euros a month [1].", "value", True),
        ("Ask Maria about the plan.", "Ask Thomas about the plan.", "value", True),
        ("It is 14 days [1].", "It is fourteen days [1].", "style", True),
        ("It costs 49 euros [1].", "It costs 49 euros [2].", "citation", True),
        ("It costs 49 euros.", "It costs 49 euros {cite}.", "citation", True),
        (
            "You can return it within the season.",
            "Sure! Return it within the season.",
            "style",
            True,
        ),
        ("Open the app and choose help", "- Open the app\n- and choose help", "format", True),
        (ABSTAIN, "It costs 49 euros [1].", "refusal", True),
        ("It costs 49 euros [1].", ABSTAIN, "refusal", True),
        ("It costs 49 euros [1].", "It costs 49 euros [1].", "cosmetic", False),
        ("No.", "We would love to help you with that in any of our shops!", "style", False),
    ],
)
def test_the_difference_tells_what_changed(answer, corrected, kind, pairs):
    found = classify_correction(answer, corrected, ABSTAIN)
    assert (found.kind, found.pairs) == (kind, pairs)
    assert 0 <= found.edit_ratio <= 1


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


def approve(session, ada, rob, answer, text):
    _, review = service.give(session, ada, answer.id, rating="down", correction=text)
    return service.decide(session, rob, review.id, decision="approve")


def new_version(session, document, text):
    """Give a document a second version from now on; the first one is retired."""
    old = session.get_one(DocumentVersion, document.current_version_id)
    old.state, old.valid_to = "retired", now()
    version = DocumentVersion(
        workspace_id=document.workspace_id,
        knowledge_base_id=document.knowledge_base_id,
        document_id=document.id,
        number=2,
        content_sha256="1" * 64,
        title=document.title,
        media_type="text/markdown",
        state="visible",
        valid_from=now(),
    )
    session.add(version)
    session.flush()
    document.current_version_id = version.id
    session.add(
        Chunk(
            id=f"new-{document.id}",
            version_id=version.id,
            document_id=document.id,
            ordinal=0,
            text=text,
            heading_path=[],
            start_char=0,
            end_char=len(text),
            n_tokens=9,
            content_sha256="0" * 64,
        )
    )
    session.flush()


def test_a_fact_nobody_wrote_down_opens_a_knowledge_ticket(session, ada, rob):
    answer = add_answer(session, ada, (PRICE,), text="It costs 49 euros a month [1].")
    verdict = approve(session, ada, rob, answer, "It costs 65 euros a month.")
    assert (verdict.outcome, verdict.ticket.kind) == ("knowledge_gap", "knowledge")
    assert verdict.ticket.documents == ["doc-1.md"]
    assert verdict.review.correction_class == "value"
    (listed,) = tickets.list_tickets(session, ada.workspace_id)
    assert (listed["id"], listed["state"]) == (verdict.ticket.id, "open")


def test_a_fact_that_was_not_retrieved_opens_a_retrieval_ticket(session, ada, rob):
    answer = add_answer(session, ada, (PRICE,), text="It is 49 days [1].")
    document = session.query(Document).one()
    other = Document(
        workspace_id=document.workspace_id,
        knowledge_base_id=document.knowledge_base_id,
        external_id="returns.md",
        title="Returns",
        current_version_id=document.current_version_id,
    )
    session.add(other)
    session.flush()
    chunk = session.query(Chunk).one()
    session.add(
        Chunk(
            id="elsewhere",
            version_id=chunk.version_id,
            document_id=other.id,
            ordinal=1,
            text=RETURN,
            heading_path=[],
            start_char=0,
            end_char=len(RETURN),
            n_tokens=9,
            content_sha256="0" * 64,
        )
    )
    session.flush()
    verdict = approve(session, ada, rob, answer, "A helmet can be returned within 21 days.")
    assert (verdict.outcome, verdict.ticket.kind) == ("knowledge_gap", "retrieval")
    assert "was not given that passage" in verdict.reason


def test_an_answer_from_a_version_outdated_at_the_time_opens_a_reindex_ticket(session, ada, rob):
    answer = add_answer(session, ada, (PRICE,), text="It costs 49 euros a month [1].")
    new_version(session, session.query(Document).one(), PRICE.replace("49", "55"))
    answer.created_at = now() + timedelta(minutes=1)  # asked after the change
    session.flush()
    verdict = approve(session, ada, rob, answer, "The Ripple plan costs 55 euros a month.")
    assert (verdict.outcome, verdict.ticket.kind) == ("stale_context", "reindex")
    assert verdict.ticket.documents == ["doc-1.md"]
    assert verdict.example is None


def test_an_answer_from_before_the_change_asks_for_nothing(session, ada, rob):
    answer = add_answer(session, ada, (PRICE,), text="It costs 49 euros a month [1].")
    new_version(session, session.query(Document).one(), PRICE.replace("49", "55"))
    verdict = approve(session, ada, rob, answer, "The Ripple plan costs 55 euros a month.")
    assert (verdict.outcome, verdict.ticket) == ("knowledge_gap", None)
    assert session.query(Ticket).count() == 0


def test_a_correction_that_changes_nothing_teaches_nothing(session, ada, rob):
    answer = add_answer(session, ada, (PRICE,), text=PRICE)
    verdict = approve(session, ada, rob, answer, PRICE)
    assert (verdict.outcome, verdict.example) == ("cosmetic", None)


def test_history_and_versions_stay_with_the_example(session, ada, rob):
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    answer = add_answer(session, ada, (PRICE,), text="It costs 59 euros.")
    answer.history = turns
    example = approve(session, ada, rob, answer, PRICE).example
    assert example.history == turns
    assert example.document_versions == [session.query(DocumentVersion).one().id]
    assert (example.source_type, example.consent) == ("correction", "internal")


def test_tickets_are_closed_once_and_stay_in_their_workspace(session, ada, rob):
    answer = add_answer(session, ada, (PRICE,), text="It costs 49 euros a month [1].")
    ticket = approve(session, ada, rob, answer, "It costs 65 euros a month.").ticket
    stranger = principal_of(session, "eve", "owner", workspace="elsewhere")
    with pytest.raises(NotFound):
        tickets.close(session, stranger, ticket.id)
    assert tickets.close(session, rob, ticket.id)["closed_by"] == "rob"
    with pytest.raises(Conflict, match="closed already, by 'rob'"):
        tickets.close(session, rob, ticket.id)
    assert tickets.list_tickets(session, ada.workspace_id) == []
    assert len(tickets.list_tickets(session, ada.workspace_id, "all")) == 1
    with pytest.raises(BadInput, match="choose open, closed, all"):
        tickets.list_tickets(session, ada.workspace_id, "some")


def preferences(session, principal, *, ratings=False):
    use_case = session.query(UseCase).one()
    return make_preferences(rated_answers(session, use_case), use_case, principal, ratings=ratings)


def test_a_reader_error_becomes_a_pair_with_the_prompt_that_was_served(session, ada, rob):
    passages = (RETURN, PRICE)
    answer = add_answer(session, ada, passages, text="The Ripple plan costs 21 euros a month [1].")
    assert approve(session, ada, rob, answer, PRICE).outcome == "example"
    (found,) = preferences(session, rob)
    assert found.pair["chosen"] == f"{PRICE} [2]"
    assert found.pair["rejected"] == "The Ripple plan costs 21 euros a month [1]."
    assert f"[2] Document 2\n{PRICE}" in found.pair["messages"][-1]["content"]
    assert found.pair["messages"][-1]["content"].endswith("Question: What does Ripple cost?")
    assert set(found.pair) == {"messages", "chosen", "rejected"}


@pytest.mark.parametrize(
    ("text", "why"),
    [("It costs 65 euros a month.", "the knowledge base lacks it"), (PRICE, "it says the same")],
)
def test_no_pair_comes_of_a_fact_that_is_lacking_or_of_no_change(session, ada, rob, text, why):
    answer = add_answer(session, ada, (PRICE,), text=PRICE)
    approve(session, ada, rob, answer, text)
    assert preferences(session, rob) == [], why


def test_no_pair_has_the_same_answer_on_both_sides(session, ada, rob):
    answer = add_answer(session, ada, (PRICE,), text=f"{PRICE} [1]")
    approve(session, ada, rob, answer, PRICE)
    assert preferences(session, rob) == []


def test_a_pair_is_placed_by_its_masked_question(session, ada, rob):
    answer = add_answer(session, ada, (PRICE,), text="The Ripple plan costs 21 euros a month [1].")
    answer.question = "I am jo@example.org, what does Ripple cost?"
    approve(session, ada, rob, answer, PRICE)
    (found,) = preferences(session, rob)
    assert found.item.question == "I am <EMAIL>, what does Ripple cost?"


def test_no_pair_comes_of_an_unreviewed_or_rejected_correction(session, ada, rob):
    answer = add_answer(session, ada, (PRICE,), text="The Ripple plan costs 21 euros a month.")
    _, review = service.give(session, ada, answer.id, rating="down", correction=PRICE)
    assert preferences(session, rob) == []
    service.decide(session, rob, review.id, decision="reject")
    assert preferences(session, rob) == []


def test_a_prompt_whose_passage_has_changed_makes_no_pair(session, ada, rob):
    answer = add_answer(session, ada, (PRICE,), text="The Ripple plan costs 21 euros a month [1].")
    approve(session, ada, rob, answer, PRICE)
    new_version(session, session.query(Document).one(), PRICE.replace("49", "55"))
    assert preferences(session, rob) == []


def test_ratings_are_taken_on_request_and_never_ones_own(session, ada, rob):
    answer = add_answer(session, ada, (PRICE,), text=f"{PRICE[:-1]} [1]. Mail jo@example.org")
    service.give(session, ada, answer.id, rating="up")
    assert preferences(session, rob) == []
    (found,) = preferences(session, rob, ratings=True)
    assert found.rating["label"] is True
    assert found.rating["completion"].endswith("[1]. Mail <EMAIL>")
    assert set(found.rating) == {"messages", "completion", "label"}
    assert preferences(session, ada, ratings=True) == []
