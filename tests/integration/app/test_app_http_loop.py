"""The loop over HTTP: feedback, review, example, dataset, evaluation, decision, replay."""

import json
from pathlib import Path

import pytest
from factories import write_jsonl, write_pages

QUESTIONS = {
    "What does the Ripple plan cost a month?": ("49 euros a month", "plans.md"),
    "What does the Torrent plan cost a month?": ("79 euros a month", "plans.md"),
    "How often can members switch plans?": ("once every 60 days", "plans.md"),
    "How long can a helmet be returned after delivery?": ("within 21 days", "returns.md"),
    "When does the workshop in Harbour Street open on weekdays?": ("at 8:30", "hours.txt"),
}


@pytest.fixture(scope="module")
def tenant(service):
    return service.furnished()


def correct(tenant, question, correction, author="client"):
    answer = tenant.ask("support", question).json()["tandem"]["answer_id"]
    body = {"answer_id": answer, "rating": "down", "correction": correction}
    reply = tenant.call("POST", "/api/v1/feedback", author, json=body)
    assert reply.status_code == 201, reply.text
    return reply.json()["review"]


def test_rating_alone_opens_no_review(tenant):
    answer = tenant.ask("support", "Ripple plan cost?").json()["tandem"]["answer_id"]
    body = {"answer_id": answer, "rating": "up"}
    assert tenant.call("POST", "/api/v1/feedback", "client", json=body).json()["review"] is None


def test_supported_correction_becomes_an_example_once(tenant):
    review = correct(tenant, "What is the Ripple price?", "The Ripple plan costs 49 euros a month!")
    waiting = tenant.call("GET", "/api/v1/reviews", "reviewer").json()
    assert review in {row["id"] for row in waiting}
    path = f"/api/v1/reviews/{review}"
    made = tenant.call("POST", path, "reviewer", json={"decision": "approve"}).json()
    assert (made["state"], made["outcome"], made["kind"]) == ("approved", "example", "grounded")
    again = tenant.call("POST", path, "reviewer", json={"decision": "approve"})
    assert again.status_code == 409
    assert "reviewer-person" in again.json()["detail"]


def test_correction_with_a_fact_nobody_wrote_is_a_knowledge_gap(tenant):
    review = correct(tenant, "What does Ripple cost?", "The Ripple plan costs 99 euros a month.")
    path = f"/api/v1/reviews/{review}"
    made = tenant.call("POST", path, "reviewer", json={"decision": "approve"}).json()
    assert made["outcome"] == "knowledge_gap"
    assert "99 euros" in made["reason"]
    assert made["example"] is None


def test_nobody_reviews_their_own_correction(tenant):
    review = correct(tenant, "Ripple?", "The Ripple plan costs 49 euros.", author="reviewer")
    path = f"/api/v1/reviews/{review}"
    reply = tenant.call("POST", path, "reviewer", json={"decision": "approve"})
    assert reply.status_code == 403
    assert tenant.call("POST", path, "owner", json={"decision": "reject"}).status_code == 200


def test_dataset_is_sealed_from_examples_and_the_same_again(tenant, service, tmp_path):
    rows = [
        {
            "messages": [
                {"role": "user", "content": question},
                {"role": "assistant", "content": f"It is {value} {{cite}}."},
            ],
            "metadata": {
                "kind": "grounded",
                "sources": [document],
                "gold_text": value,
                "author": "ada",
            },
        }
        for question, (value, document) in QUESTIONS.items()
    ]
    rows.append(
        {
            "messages": [
                {"role": "user", "content": "What is the weather on the moon?"},
                {"role": "assistant", "content": "It is 40 degrees {cite}."},
            ],
            "metadata": {"kind": "grounded", "sources": ["moon.md"], "author": "ada"},
        }
    )
    file = write_jsonl(tmp_path / "examples.jsonl", rows)
    body = {"use_case": "support", "from_file": str(file)}
    refused = tenant.call("POST", "/api/v1/datasets", "ml", json=body)
    assert refused.status_code == 403  # files of the machine are the operator's
    made = service.operator_in(tenant, "POST", "/api/v1/datasets", json=body).json()
    assert made["imported"]["added"] == len(rows)
    assert made["verified"] is True
    reasons = [row["reason"] for row in made["provenance"]["refused"]]
    assert len(reasons) == 1
    assert "moon.md" in reasons[0]
    again = tenant.call("POST", "/api/v1/datasets", "ml", json={"use_case": "support"}).json()
    assert again["content_sha256"] == made["content_sha256"]
    assert again["id"] == made["id"]
    shown = tenant.call("GET", f"/api/v1/datasets/{made['content_sha256'][:12]}", "client").json()
    assert shown["rows"] == made["rows"]


def test_use_case_without_examples_says_how_to_get_some(service):
    tenant = service.furnished()
    reply = tenant.call("POST", "/api/v1/datasets", json={"use_case": "support"})
    assert reply.status_code == 400
    assert "tandem dataset build" in reply.json()["detail"]


LAMPS = [
    f"{first}{last}"
    for first in ("amber", "birch", "coral", "delta", "ember", "fjord")
    for last in ("lux", "ray", "glow", "beam", "spot")
]


@pytest.fixture(scope="module")
def evaluated(tenant, service):
    lamps = {
        f"lamps/{name}.md": f"# {name}\n\nThe {name} lamp costs {40 + n} euros in every workshop.\n"
        for n, name in enumerate(LAMPS)
    }
    folder = write_pages(service.folder / "lamps", lamps)
    body = {"paths": [str(folder)]}
    reply = service.operator_in(tenant, "POST", "/api/v1/knowledge-bases/docs/ingest", json=body)
    assert tenant.wait(reply.json()["id"])["result"]["counts"]["added"] == len(lamps)
    rows = [
        {
            "id": name,
            "question": f"What does the {name} lamp cost?",
            "answers": [f"{40 + n} euros"],
            "gold": [f"lamps/{name}.md"],
        }
        for n, name in enumerate(LAMPS)
    ]
    file = write_jsonl(service.folder / "samples.jsonl", rows)
    body = {
        "use_case": "support",
        "samples": str(file),
        "arms": ["prompt", "rag", "hybrid"],
        "primary": "contains_answer",
        "spec": {"margin": 0.25},
    }
    reply = service.operator_in(tenant, "POST", "/api/v1/evaluations", json=body)
    assert reply.status_code == 202, reply.text
    job = tenant.wait(reply.json()["id"])
    assert job["state"] == "succeeded", job
    return reply.json()["evaluation"]


def test_evaluation_reports_every_arm(tenant, evaluated):
    shown = tenant.call("GET", f"/api/v1/evaluations/{evaluated}", "client").json()
    text = str(shown["result"])
    for arm in ("prompt", "rag", "hybrid"):
        assert arm in text
    page = tenant.call("GET", f"/api/v1/evaluations/{evaluated}/report")
    assert page.headers["content-type"].startswith("text/html")
    assert "hybrid" in page.text
    assert tenant.call("GET", "/api/v1/evaluations").json()[0]["finished"] is True


def test_hidden_documents_are_not_retrieved_and_such_a_run_decides_nothing(
    tenant, evaluated, service
):
    file = service.folder / "hidden.jsonl"
    rows = [json.loads(line) for line in (service.folder / "samples.jsonl").open()]
    found = tenant.call("GET", "/api/v1/knowledge-bases/docs/documents").json()
    named = [row["document"] for row in found]
    names = {row["id"]: next(d for d in named if row["id"] in d) for row in rows}
    write_jsonl(file, [row | {"gold": [names[row["id"]]]} for row in rows])
    body = {"use_case": "support", "samples": str(file), "arms": ["rag"], "remove_gold": True}
    reply = service.operator_in(tenant, "POST", "/api/v1/evaluations", json=body)
    assert reply.status_code == 202, reply.text
    job = tenant.wait(reply.json()["id"])
    assert job["state"] == "succeeded", job
    store = Path(job["result"]["path"]) / "outputs.jsonl"
    outputs = [json.loads(line) for line in store.open()][1:]
    assert outputs
    assert not any(names[o["sample_id"]] in o["retrieved"] for o in outputs)
    made = tenant.call("POST", "/api/v1/decisions", "ml", json={"use_case": "support"}).json()
    assert made["evaluation"] == evaluated


def test_decision_is_recorded_applied_and_replayed_bit_for_bit(tenant, evaluated):
    body = {"use_case": "support"}
    made = tenant.call("POST", "/api/v1/decisions", "ml", json=body).json()
    assert made["evaluation"] == evaluated
    assert made["arm"] in ("rag", "hybrid"), made["record"]["headline"]
    assert made["applied"] is True
    assert tenant.call("GET", "/api/v1/use-cases/support").json()["arm"] == made["arm"]
    replayed = tenant.call("POST", f"/api/v1/decisions/{made['id']}/replay").json()
    assert replayed == {"identical": True, "differences": []}


def test_decision_of_another_use_cases_evaluation_is_refused(tenant, evaluated):
    body = {"name": "second", "knowledge_bases": ["docs"]}
    assert tenant.call("POST", "/api/v1/use-cases", json=body).is_success
    body = {"use_case": "second", "evaluation": evaluated}
    reply = tenant.call("POST", "/api/v1/decisions", json=body)
    assert reply.status_code == 400, reply.text
    assert tenant.call("GET", "/api/v1/use-cases/second").json()["arm"] == "hybrid"


def test_decisions_and_evaluations_stay_in_their_workspace(tenant, evaluated, service):
    made = tenant.call("POST", "/api/v1/decisions", json={"use_case": "support"}).json()
    other = service.tenant()
    for method, path in (
        ("GET", f"evaluations/{evaluated}"),
        ("GET", f"evaluations/{evaluated}/report"),
        ("GET", f"decisions/{made['id']}"),
        ("POST", f"decisions/{made['id']}/replay"),
    ):
        assert other.call(method, f"/api/v1/{path}").status_code == 404, path
    assert other.call("GET", "/api/v1/decisions").json() == []
    assert other.call("GET", "/api/v1/evaluations").json() == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"arms": ["best"]}, "choose prompt, rag, tuned, hybrid, reader"),
        ({"samples": "/no/such/file.jsonl"}, "/no/such/file.jsonl"),
        ({"primary": "beauty"}, "beauty"),
        ({"spec": {"margins": 1}}, "margins"),
    ],
)
def test_unusable_evaluation_is_refused_before_it_runs(tenant, evaluated, service, change, said):
    body = {"use_case": "support", "samples": str(service.folder / "samples.jsonl")}
    before = len(tenant.call("GET", "/api/v1/evaluations").json())
    reply = service.operator_in(tenant, "POST", "/api/v1/evaluations", json=body | change)
    assert reply.status_code == 400, reply.text
    assert said in reply.json()["detail"]
    assert len(tenant.call("GET", "/api/v1/evaluations").json()) == before


def test_tuning_setting_that_does_not_exist_is_refused(tenant, service):
    service.operator_in(tenant, "GET", "/api/v1/jobs")
    datasets = tenant.call("POST", "/api/v1/datasets", json={"use_case": "support"}).json()
    body = {"use_case": "support", "dataset": datasets["id"], "settings": {"rank": 3}}
    reply = tenant.call("POST", "/api/v1/tuning-runs", "ml", json=body)
    assert reply.status_code == 400
    assert "'rank'" in reply.json()["detail"]
    assert tenant.call("GET", "/api/v1/tuning-runs").json() == []


def test_unfinished_jobs_are_resumed_without_harm(tenant):
    assert tenant.call("POST", "/api/v1/jobs/resume").json() == {"unfinished": False}
