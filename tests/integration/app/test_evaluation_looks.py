"""Looks at questions are counted, rules are frozen, and the same data decide the same once."""

import json
from pathlib import Path

import pytest
from factories import write_jsonl

from app.db.tables import Look, UseCase

ROWS = [
    ("ripple", "What does the Ripple plan cost a month?", "49 euros"),
    ("torrent", "What does the Torrent plan cost a month?", "79 euros"),
    ("helmet", "How long can a helmet be returned after delivery?", "21 days"),
    ("hours", "When does the workshop in Harbour Street open?", "8:30"),
]
FACTS = {"domain": "support", "changes": "low"}


@pytest.fixture
def tenant(service):
    return service.furnished()


@pytest.fixture
def run(tenant, service, tmp_path):
    """Run an evaluation of some rows; its id and its result."""

    def start(rows=ROWS, *, plan=False, **options):
        name = write_jsonl(
            tmp_path / "samples.jsonl",
            [{"id": i, "question": q, "answers": [a]} for i, q, a in rows],
        )
        body = {"use_case": "support", "samples": str(name), "arms": ["rag", "prompt"], **options}
        if plan:
            reply = service.operator_in(tenant, "POST", "/api/v1/evaluations/plan", json=body)
            assert reply.status_code == 200, reply.text
            return reply.json()
        reply = service.operator_in(tenant, "POST", "/api/v1/evaluations", json=body)
        assert reply.status_code == 202, reply.text
        job = tenant.wait(reply.json()["id"])
        assert job["state"] == "succeeded", job
        result = json.loads((Path(job["result"]["path"]) / "result.json").read_text())
        return reply.json()["evaluation"], result

    return start


def decide(tenant, evaluation=None, **more):
    body = {"use_case": "support", "evaluation": evaluation, **more}
    reply = tenant.call("POST", "/api/v1/decisions", "ml", json=body)
    assert reply.status_code == 201, reply.text
    return reply.json()


def test_the_same_data_decide_once_and_a_second_run_is_beyond_the_planned_look(tenant, run):
    first, result = run()
    assert result["manifest"]["look"] == "1 of 1 planned"
    made = decide(tenant, first)
    assert (made["look"], made["exploratory"], made["made_before"]) == (1, [], False)
    again = decide(tenant, first)
    assert (again["id"], again["made_before"]) == (made["id"], True)
    more = [*ROWS, ("plans", "Which plans are there?", "Ripple and Torrent")]
    planned = run(more, plan=True)
    assert (planned["look"], planned["planned_looks"], planned["seen_before"]) == (2, 1, 4)
    second, result = run(more)
    assert result["manifest"]["look"] == "2 of 1 planned"
    assert result["manifest"]["questions_seen_before"] == 4
    assert result["manifest"]["samples_used_before"] == 1
    assert result["decision"]["headline"].startswith("Exploratory. ")
    later = decide(tenant, second)
    assert "look 2 at 4 of its 5 questions; only 1 was planned" in later["exploratory"][0]
    assert not later["applied"]
    said = tenant.call("GET", f"/api/v1/decisions/{later['id']}/why", "client").json()["sentences"]
    assert any("confirm it on fresh questions" in line for line in said)
    replayed = tenant.call("POST", f"/api/v1/decisions/{later['id']}/replay").json()
    assert replayed == {"identical": True, "differences": []}


def test_planned_looks_share_alpha_and_fresh_questions_begin_anew(tenant, run, service):
    rules = {"looks": 2, "margin": 0.05}
    first, _ = run(ROWS[:2], spec=rules)
    second, _ = run(ROWS, spec=rules)
    made = [decide(tenant, name) for name in (first, second)]
    assert [m["look"] for m in made] == [1, 2]
    assert not any(m["exploratory"] for m in made)
    for decision in made:
        assert {pair["alpha"] for pair in decision["record"]["evidence"]["pairs"]} == {0.025}
    fresh, _ = run([("opens", "Where is the workshop?", "Harbour Street")], spec=rules)
    assert decide(tenant, fresh)["look"] == 1
    with service.container.database.session() as session:
        looks = session.query(Look).filter(Look.workspace_id == tenant.id).all()
    assert sorted(look.look for look in looks) == [1, 1, 2]


def test_the_same_words_again_are_no_second_look(tenant, run):
    _, once = run()
    _, twice = run()
    assert once["manifest"]["texts_sha256"] == twice["manifest"]["texts_sha256"]
    assert twice["manifest"]["look"] == "1 of 1 planned"
    assert twice["manifest"]["samples_used_before"] == 1
    timed = {"constraints": [
        {"metric": "latency_s", "sense": "at_most", "limit": 9.0, "quantile": 0.95}
    ]}  # fmt: skip
    other = [("a", "What is a spoke?", "wire"), ("b", "What is a rim?", "ring")]
    run(other, spec=timed)
    _, later = run(other, spec=timed)  # the clock says something new every time
    assert later["manifest"]["look"] == "2 of 1 planned"


def test_other_accepted_answers_to_the_same_words_are_a_second_look(tenant, run):
    _, once = run()
    regraded = [(i, q, "49 euros") for i, q, _ in ROWS]
    _, twice = run(regraded)
    assert once["manifest"]["texts_sha256"] == twice["manifest"]["texts_sha256"]
    assert twice["manifest"]["look"] == "2 of 1 planned"


def test_a_look_that_joins_two_lines_counts_the_looks_of_both(tenant, run):
    rules = {"looks": 2}
    for rows in (ROWS[:2], ROWS[2:]):
        assert run(rows, spec=rules)[1]["manifest"]["look"] == "1 of 2 planned"
    joined, result = run(spec=rules)
    assert result["manifest"]["look"] == "3 of 2 planned"
    assert decide(tenant, joined)["exploratory"]


def test_another_house_style_after_the_data_were_seen_is_said(tenant, run, service):
    limit = {"metric": "style_match", "sense": "at_least", "limit": 0.5}
    rules = {"spec": {"constraints": [limit]}}

    def set_style(pattern):
        with service.container.database.session() as session:
            for use_case in session.query(UseCase).filter(UseCase.workspace_id == tenant.id):
                use_case.options = {**use_case.options, "style_pattern": pattern}

    set_style("euros")
    run(**rules)
    set_style("days")
    changed, _ = run(**rules)
    assert decide(tenant, changed)["exploratory"][0] == (
        "The style changed after the data were seen."
    )


def test_evaluations_from_before_looks_were_kept_count_too(tenant, run, service):
    first, _ = run()
    with service.container.database.session() as session:
        session.query(Look).filter(Look.workspace_id == tenant.id).delete()
    other, result = run(arms=["prompt"])
    assert other != first
    assert result["manifest"]["look"] == "2 of 1 planned"
    assert result["manifest"]["questions_seen_before"] == 4


def test_rules_changed_after_the_data_were_seen_are_exploratory(tenant, run):
    run(spec={"margin": 0.05})
    changed, result = run(spec={"margin": 0.2, "looks": 3})
    assert (
        "The looks and margin changed after the data were seen" in result["decision"]["reason"][0]
    )
    assert "margin 0.2, was 0.05" in decide(tenant, changed)["exploratory"][0]
    other = [("a", "What is a spoke?", "wire"), ("b", "What is a rim?", "ring")]
    fresh, _ = run(other, spec={"margin": 0.2, "looks": 3})
    assert decide(tenant, fresh)["exploratory"] == []


def test_gates_changed_after_the_data_were_seen_are_said_unless_samples_are_fresh(tenant, run):
    body = {"use_case": "support", "facts": FACTS}
    tenant.call("PUT", "/api/v1/decisions/case", "ml", json=body)
    first, _ = run()
    before = decide(tenant, first)
    assert before["exploratory"] == []
    body["facts"] = FACTS | {"data_allowed_in": ["weights"]}
    tenant.call("PUT", "/api/v1/decisions/case", "ml", json=body)
    after = decide(tenant, first)
    assert after["exploratory"] == ["The gates changed after the data were seen."]
    assert after["id"] != before["id"]
    assert [gate["arm"] for gate in after["record"]["gates"]] == ["rag"]
    assert decide(tenant, first)["id"] == after["id"]
    fresh, _ = run([("a", "What is a spoke?", "wire"), ("b", "What is a rim?", "ring")])
    assert decide(tenant, fresh)["exploratory"] == []


def test_an_exploratory_choice_is_served_only_when_asked_for(tenant, run, monkeypatch):
    run(arms=["rag"])
    rules = {"min_clusters": 2, "margin": 0.9}
    second, _ = run(arms=["rag"], spec=rules)
    made = decide(tenant, second)
    assert made["exploratory"]
    assert (made["status"], made["applied"]) == ("WINNER", False)
    served = decide(tenant, second, apply=True)
    assert (served["id"], served["applied"]) == (made["id"], True)
    assert tenant.call("GET", "/api/v1/use-cases/support").json()["arm"] == "rag"


def test_a_plan_is_told_before_and_knows_how_long_it_takes(tenant, run):
    plan = run(plan=True)
    assert plan["generations"] == 8
    assert plan["seconds"] is None
    assert plan["plan"]["verdict"] == "refuse"
    assert any("nobody has looked at" in line for line in plan["sentences"])
    run()
    assert run(plan=True)["seconds"] >= 0
