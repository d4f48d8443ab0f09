"""Decisions over HTTP, around the measurement: facts, advice, volatility, what is due."""

from datetime import timedelta

import pytest
import sqlalchemy as sa

from app.db.base import now
from app.db.tables import (
    Answer,
    AnswerChunk,
    Decision,
    Document,
    DocumentVersion,
    Feedback,
    TriggerCheck,
)

FACTS = {"domain": "support", "changes": "low", "data_allowed_in": ["index"]}


@pytest.fixture(scope="module")
def tenant(service):
    return service.furnished()


def decide(tenant, **more):
    reply = tenant.call("POST", "/api/v1/decisions", "ml", json={"use_case": "support"} | more)
    assert reply.status_code == 201, reply.text
    return reply.json()


def check(tenant):
    reply = tenant.call("POST", "/api/v1/decisions/check", "ml", json={"use_case": "support"})
    assert reply.status_code == 200, reply.text
    return {row["kind"]: row for row in reply.json()}


def due(tenant):
    return {row["trigger"]: row for row in tenant.call("GET", "/api/v1/decisions/due").json()}


def test_facts_are_declared_and_unknown_ones_refused(tenant):
    body = {"use_case": "support", "facts": FACTS}
    made = tenant.call("PUT", "/api/v1/decisions/case", "ml", json=body).json()
    assert made["case"]["domain"] == "support"
    assert made["case"]["task"] == "question_answering"
    body["facts"] = {"domain": "poetry"}
    refused = tenant.call("PUT", "/api/v1/decisions/case", "ml", json=body)
    assert refused.status_code == 400
    assert "support, code, documents, finance, other" in refused.json()["detail"]
    assert tenant.call("PUT", "/api/v1/decisions/case", "client", json=body).status_code == 403


def test_without_an_evaluation_the_advice_is_assumed_recorded_and_not_served(tenant):
    before = tenant.call("GET", "/api/v1/use-cases/support").json()["arm"]
    made = decide(tenant)
    assert (made["status"], made["arm"], made["applied"]) == ("ASSUMED", "rag", False)
    assert made["evaluation"] is None
    assert tenant.call("GET", "/api/v1/use-cases/support").json()["arm"] == before
    replayed = tenant.call("POST", f"/api/v1/decisions/{made['id']}/replay").json()
    assert replayed == {"identical": True, "differences": []}
    said = tenant.call("GET", f"/api/v1/decisions/{made['id']}/why", "client").json()["sentences"]
    assert said[0].startswith("Nothing is measured yet: start with rag")
    assert any("may not be put into a model's weights" in line for line in said)
    assert any(line.startswith("Careful: Nothing has been measured") for line in said)


def test_a_plan_is_given_before_a_run(tenant):
    body = {"questions": 100, "arms": ["rag", "hybrid"], "spec": {"margin": 0.05}}
    made = tenant.call("POST", "/api/v1/decisions/plan", "client", json=body).json()
    assert made["verdict"] == "refuse"
    assert made["needed"] > 500
    body["questions"] = made["needed"]
    assert tenant.call("POST", "/api/v1/decisions/plan", json=body).json()["verdict"] == "enough"


def backdate(service, tenant, days):
    """Make what there is look older, as if it had been there for some time."""
    with service.container.database.session() as session:
        moment = now() - timedelta(days=days)
        for table, column in (
            (DocumentVersion, DocumentVersion.valid_from),
            (Document, Document.created_at),
        ):
            where = table.workspace_id == tenant.id
            session.execute(sa.update(table).where(where).values({column: moment}))


def test_volatility_is_read_from_the_log_and_weighted_by_what_is_cited(service):
    tenant = service.furnished()
    calm = tenant.call("GET", "/api/v1/decisions/volatility/support").json()
    assert (calm["events"], calm["measured_on"]) == (0, "values")
    backdate(service, tenant, 200)
    plans = "# Plans\n\nThe Ripple plan costs {} euros a month.\n"
    for price in (51, 52):
        assert tenant.upload("docs", {"plans.md": plans.format(price)})["state"] == "succeeded"
    reworded = "# Returns\n\nWithin 21 days after delivery a helmet can be returned.\n"
    tenant.upload("docs", {"returns.md": reworded})
    values = tenant.call("GET", "/api/v1/decisions/volatility/support").json()
    assert values["events"] == 2  # the rewording changed no value
    anything = tenant.call("GET", "/api/v1/decisions/volatility/support?level=bytes").json()
    assert anything["events"] == 3
    assert values["sources"][0]["source"] == "plans.md"
    assert tenant.call("GET", "/api/v1/decisions/volatility/support?level=words").status_code == 422
    refused = tenant.call("GET", "/api/v1/decisions/volatility/support?level=answers")
    assert "no answer has cited anything yet" in refused.json()["detail"]
    tenant.ask("support", "What does the Ripple plan cost a month?")
    cited = tenant.call("GET", "/api/v1/decisions/volatility/support").json()
    weights = {row["source"]: row["share"] for row in cited["sources"]}
    assert weights == {"plans.md": 1.0}
    assert cited["rate"] > values["rate"]


def test_a_quote_that_disappears_is_a_changed_answer(service):
    tenant = service.furnished()
    backdate(service, tenant, 100)
    answer = tenant.ask("support", "What does the Ripple plan cost a month?").json()
    with service.container.database.session() as session:
        query = sa.update(AnswerChunk).where(AnswerChunk.answer_id == answer["tandem"]["answer_id"])
        session.execute(query.values(cited=True, quote="The Ripple plan costs 49 euros a month."))
    path = "/api/v1/decisions/volatility/support?level=answers"
    before = tenant.call("GET", path).json()
    assert before["events"] == 0
    plans = "# Plans\n\nThe Ripple plan costs 59 euros a month.\n"
    tenant.upload("docs", {"plans.md": plans})
    after = tenant.call("GET", path).json()
    assert after["events"] == 1
    assert after["rate"] > before["rate"]


def test_what_changed_or_grew_old_makes_a_decision_due_until_it_is_made_again(service, tenant):
    decide(tenant)
    calm = check(tenant)
    assert not any(row["fired"] for row in calm.values()), calm
    assert due(tenant) == {}
    body = {"knowledge_bases": ["docs"], "name": "other"}
    assert tenant.call("POST", "/api/v1/use-cases", json=body).is_success
    with service.container.database.session() as session:
        made = sa.select(Decision).where(Decision.workspace_id == tenant.id)
        for decision in session.scalars(made):
            parts = decision.context["parts"] | {"base model": "another one"}
            decision.context = decision.context | {"parts": parts}
            decision.created_at -= timedelta(days=120)
    arm = tenant.call("GET", "/api/v1/use-cases/support").json()["arm"]
    fired = check(tenant)
    assert fired["parts"]["fired"]
    assert fired["age"]["fired"]
    check(tenant)  # a second look opens no second request
    waiting = due(tenant)
    assert set(waiting) == {"age", "parts"}
    assert "base model" in waiting["parts"]["why"]
    assert tenant.call("GET", "/api/v1/decisions/due?use_case=other").json() == []
    assert tenant.call("GET", "/api/v1/use-cases/support").json()["arm"] == arm  # nothing switches
    decide(tenant)
    assert due(tenant) == {}


def add_answers(session, tenant, questions, moment, corrected=0):
    use_case = tenant.call("GET", "/api/v1/use-cases/support").json()["id"]
    for i, question in enumerate(questions):
        answer = Answer(
            workspace_id=tenant.id,
            use_case_id=use_case,
            question=question,
            history=[],
            text="49 euros",
            arm="rag",
            abstained=False,
            finish_reason="stop",
            identity={},
            identity_sha256="0" * 64,
            timings={},
            prompt_tokens=1,
            completion_tokens=1,
            asked_by="client-person",
            created_at=moment + timedelta(seconds=i),
        )
        session.add(answer)
        session.flush()
        if i % 10 < corrected:
            session.add(
                Feedback(
                    workspace_id=tenant.id,
                    answer_id=answer.id,
                    author="client-person",
                    rating="down",
                    correction="59 euros",
                )
            )


def test_other_questions_and_more_corrections_make_a_decision_due(service):
    tenant = service.furnished()
    old = [f"What does the Ripple plan number {i} cost a month in euros?" for i in range(150)]
    new = [f"Which helmet sizes fit cyclist {i} in the workshop garage?" for i in range(300)]
    with service.container.database.session() as session:
        add_answers(session, tenant, old, now() - timedelta(days=9), corrected=0)
    decide(tenant)
    with service.container.database.session() as session:
        add_answers(session, tenant, new, now() + timedelta(seconds=1), corrected=5)
    fired = check(tenant)
    assert fired["questions"]["fired"], fired["questions"]
    assert fired["corrections"]["fired"], fired["corrections"]
    assert set(due(tenant)) == {"questions", "corrections"}
    with service.container.database.session() as session:
        spent = session.scalar(
            sa.select(sa.func.sum(TriggerCheck.alpha)).where(TriggerCheck.workspace_id == tenant.id)
        )
    assert 0 < spent <= 0.1


def test_nothing_crosses_the_border_of_a_workspace(service, tenant):
    made = decide(tenant)
    other = service.tenant()
    assert other.call("GET", f"/api/v1/decisions/{made['id']}/why").status_code == 404
    assert other.call("GET", "/api/v1/decisions/due").json() == []
    assert other.call("GET", "/api/v1/decisions/volatility/support").status_code == 404
    body = {"use_case": "support"}
    assert other.call("POST", "/api/v1/decisions/check", json=body).status_code == 404


def test_a_check_without_a_decision_says_what_to_do(service):
    tenant = service.furnished()
    reply = tenant.call("POST", "/api/v1/decisions/check", json={"use_case": "support"})
    assert reply.status_code == 400
    assert "tandem decide" in reply.json()["detail"]
